"""Other libraries' schedules under their own names and arguments, with their own values.

One module a library: `hf`, `torch`, `optax`, `timm`, `keras`, `fastai`, `mlx_lm`. An alias is a function
that returns schedules of ours, so it prints, saves and composes like them; in a spec it is called
``"torch.OneCycleLR(...)"``. What the libraries really give is recorded in ``tests/golden`` by
``scripts/record_traces.py``.
"""
