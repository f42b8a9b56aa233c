"""Exact optimizations of the training step, each checked against the plain path before it is used."""
