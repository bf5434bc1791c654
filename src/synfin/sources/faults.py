"""Words for what the framing refuses (FrameError of frame.pxd)."""

from __future__ import annotations

FOREIGN = "foreign"  # neither pcap nor pcapng

#: By FrameError: kind, and reason with the two values that the framing noted.
_FAULTS: tuple[tuple[str, str], ...] = (
    ("", ""),
    (FOREIGN, "is empty"),
    (FOREIGN, "is neither pcap nor pcapng"),
    ("truncated", "the file ends inside this record; everything before it was read"),
    ("corrupt", "the file header names version {a}.{b}, which is not supported"),
    ("corrupt", "a captured length of {a} bytes is impossible (at most {b} here)"),
    ("corrupt", "a block length of {a} bytes is impossible"),
    ("corrupt", "the block's two lengths differ: {a} before and {b} after it"),
    ("corrupt", "a block of type {a} cannot be {b} bytes long"),
    ("corrupt", "the section's byte-order mark is {a:#010x}"),
    ("corrupt", "the packet is of interface {a}, and its section describes {b}"),
    ("corrupt", "option {a} of the interface, {b} bytes long, runs over the end of its block"),
    ("corrupt", "the section describes more than {a} interfaces"),
    ("unreadable", "there is no memory for this record"),
    ("corrupt", "the bytes could not be read"),
)


def fault(code: int, a: int, b: int) -> tuple[str, str] | None:
    """(kind, reason) of an error of the framing; None for none."""
    kind, reason = _FAULTS[code]
    return (kind, reason.format(a=a, b=b)) if kind else None
