"""From rows to the micro-batches of each update.

`sampler` decides which rows an update holds, `partition` and `packing` divide them into micro-batches, `batches`
lays a micro-batch out as arrays, and `plan` chooses between padding and packing.
"""
