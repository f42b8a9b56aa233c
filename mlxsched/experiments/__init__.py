"""Several runs that belong together, and what they show."""
