"""The slow tracker: the contract of the two tables again, in plain Python over dpkt, to compare the fast one with.

Written from the contract and from docs/design/0001-open-cases.md, never from the compiled core. Read time.py (clocks),
decode.py (bytes to segments), end.py (sequence accounts), record.py and connection.py (one record), row.py (its columns),
intervals.py, and tracker.py, which drives them. Needs the extra ``reference`` (dpkt).
"""

from .capture import read
from .time import Packet
from .tracker import Result, track

__all__ = ["Packet", "Result", "read", "track"]
