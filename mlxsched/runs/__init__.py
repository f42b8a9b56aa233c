"""The run directory: files and JSON, written so that a crash at any moment loses nothing that was promised.

Start at `mlxsched.runs.directory.RunDirectory`.
"""
