"""Judgements on data, schedules and runs: what was found, why it matters, and the fix."""
