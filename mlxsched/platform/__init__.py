"""Everything that depends on the machine: BLAS, memory, power, signals, paths."""
