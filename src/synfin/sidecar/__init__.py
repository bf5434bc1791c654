"""Live runs as a service: rolled output, metrics, logs, and what drives them."""
