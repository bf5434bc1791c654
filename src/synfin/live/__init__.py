"""What a run on an interface needs beside tracking: its output for months, metrics, signals."""
