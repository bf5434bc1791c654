"""synfin: one row per TCP connection, from captures or a live interface."""
