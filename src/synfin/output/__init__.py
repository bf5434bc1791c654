"""Where rows go: Arrow batches, files of rows, and the summary of a run."""

#: Formats of rows, the one that a folder gets first.
FORMAT_NAMES = ("parquet", "arrow", "csv", "jsonl")
