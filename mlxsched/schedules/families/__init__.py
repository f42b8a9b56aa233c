"""The shapes of schedules."""
