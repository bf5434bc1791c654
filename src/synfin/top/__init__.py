"""`synfin top`: what the newest rows of the interval table, and of those by key, say; on a terminal."""
