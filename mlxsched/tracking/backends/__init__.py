"""One module for each tracker, named as ``--report-to`` names it, with a function ``open_run(opening)``."""
