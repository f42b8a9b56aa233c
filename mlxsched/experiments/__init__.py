"""Groups of related runs, and their evaluation."""
