"""Other libraries' schedules under their own names and arguments, with their own values.

One module a library: `hf`, `torch`, `optax`, `timm`, `keras`, `fastai`, `mlx_lm`. An alias is a function
that returns one of our schedules, so it prints, saves and composes like them; in a spec it is written
``"torch.OneCycleLR(...)"``. ``scripts/record_traces.py`` records what the libraries themselves compute into
``tests/golden``, and the tests compare.
"""
