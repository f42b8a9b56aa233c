"""Where rows come from: the bundled data set, local files, or the Hugging Face hub."""
