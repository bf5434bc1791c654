"""stand-in"""
import sys
class Logs:
    def __init__(self, format, stream=sys.stderr): self.format=format
    def info(self, event, **f): pass
    def warning(self, event, **f): pass
    error = warning
