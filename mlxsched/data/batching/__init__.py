"""How rows become the micro-batches of each update."""
