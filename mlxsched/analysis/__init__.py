"""Pure functions: the plan of a run, the memory that it takes."""
