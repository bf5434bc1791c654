"""A reason for which another tool and synfin differ: a rule over the packets, with the argument for it.

A class holds for a packet (or a value) or it does not; which capture it comes from plays no part. The first class that
holds gives the name. What none holds for is unexplained. The classes of each tool stand in tshark_classes.py and
tcptrace_classes.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from synfin.verify.points import Point

UNEXPLAINED = "unexplained"


class Class(NamedTuple):
    """A named reason."""

    name: str
    columns: tuple[str, ...]
    holds: Callable[[Point], bool]
    argument: str
