"""Policies watch a run and decide what happens next: evaluate, save, stop, roll back, or revise the horizon."""
