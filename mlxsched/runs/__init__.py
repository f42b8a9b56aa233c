"""The run directory: its files, and the guarantees that they keep when a process is killed at any moment.

Start at `mlxsched.runs.directory.RunDirectory`.
"""
