"""Where rows go: Arrow batches, files of rows, and the summary of a run."""
