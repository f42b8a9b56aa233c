"""Selects the forward path of a run: the fastest exact one on its device, timed at the start."""
