"""Models: loading, adapters, loss, evaluation, generation."""
