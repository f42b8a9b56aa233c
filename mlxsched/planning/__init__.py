"""The plan of a run: its length, its schedule, the memory that it takes."""
