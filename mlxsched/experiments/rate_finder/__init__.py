"""Find the peak learning rate of a run from short trainings."""
