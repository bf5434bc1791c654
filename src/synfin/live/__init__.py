"""The sidecar: workers on rings, rolling output, metrics, signals, privileges."""
