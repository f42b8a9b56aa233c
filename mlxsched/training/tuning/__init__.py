"""Which of the exact forward paths a run takes: the fastest on its own device, timed at the start."""
