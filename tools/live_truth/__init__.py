"""`synfin live` against kernels whose states and round trips are known: ``python -m live_truth``, with tools/ in PYTHONPATH."""
