"""The picture of a connection in memory (docs/performance.md): offsets and sizes of the fields of the core's structs.

Offsets are computed from the declarations in flow.pxd and types.pxd by the rules of C; what the compiler says
(`probe.layout`) must agree, so that a struct that changes changes the picture, and a wrong picture is an error.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

from synfin._core.probe import layout

_CORE = Path(__file__).resolve().parents[1] / "src/synfin/_core"
_SCALARS = {f"{sign}int{8 * size}_t": size for size in (1, 2, 4, 8) for sign in ("", "u")} | {"char": 1}
_LINE = 64
#: The structs of the picture: those drawn field by field, then those of which the size is enough, and when they are taken.
_DRAWN = {
    "Flow": "every connection: what every packet reads and writes",
    "Facts": "every connection: what the opening, round trips and the end write",
}
_BLOCKS = {
    "Slot": "each entry of the index, of which three eighths to three quarters are in use",
    "AddressPair": "each IPv6 connection",
    "Extra": "a FIN or a RST, or the first of the following",
    "Copies": "SYNs or SYN-ACKs that came again, or a SYN held beside the record",
    "CopyPair": "each two of them that are remembered, at most four for an end",
    "Held": "a SYN held beside the record",
    "Trouble": "holes, resends and what else is odd",
    "Vlans": "several VLANs",
    "Tunnel": "the first packet came in a tunnel",
    "Wide": "an instant, a round trip, an option of a SYN or a number that does not fit its place in Facts",
}


class Field(NamedTuple):
    """A field of a struct: bytes from its beginning, bytes of all its elements."""

    name: str
    offset: int
    size: int


class Struct(NamedTuple):
    """A struct as C lays it out."""

    size: int
    alignment: int
    fields: tuple[Field, ...]


def structs() -> dict[str, Struct]:
    """Every struct that flow.pxd and types.pxd declare and whose fields are scalars or such structs."""
    known = {name: Struct(size, size, ()) for name, size in _SCALARS.items()}
    known |= {"Sum128": Struct(16, 8, ()), "Choices": Struct(4, 4, ())}  # core.h
    for name in ("types.pxd", "flow.pxd"):
        text = (_CORE / name).read_text()
        numbers = {key: int(value) for key, value in re.findall(r"^    (\w+) = (\d+)", text, re.MULTILINE)}
        for found in re.finditer(r"^cdef struct (\w+):\n((?:    .*\n|\n)+)", text, re.MULTILINE):
            fields = [line.partition("#")[0].split(None, 1) for line in found[2].splitlines()]
            fields = [(kind.strip(), names) for kind, names in (field for field in fields if len(field) == 2)]
            if all(kind in known for kind, _ in fields):
                known[found[1]] = _laid_out(fields, known, numbers)
    return known


def _laid_out(fields: list[tuple[str, str]], known: dict[str, Struct], numbers: dict[str, int]) -> Struct:
    at, widest, found = 0, 1, []
    for kind, names in fields:
        for declared in names.split(","):
            name, *bounds = re.split(r"[\[\]]+", declared.strip().rstrip("]"))
            count = 1
            for bound in bounds:
                count *= numbers.get(bound) or int(bound)
            inner = known[kind]
            at = -(-at // inner.alignment) * inner.alignment
            found.append(Field(name + "".join(f"[{bound}]" for bound in bounds), at, inner.size * count))
            at += inner.size * count
            widest = max(widest, inner.alignment)
    return Struct(-(-at // widest) * widest, widest, tuple(found))


def _lines(struct: Struct) -> list[str]:
    # The fields by the cache line in which they begin; the number is the offset of the line.
    rows = []
    for start in range(0, struct.size, _LINE):
        fields = [f"{field.name} {field.size}" for field in struct.fields if start <= field.offset < start + _LINE]
        rest = textwrap.wrap(" ".join(cell.replace(" ", "\0") for cell in fields), 104) or ["…"]
        cells = [line.replace(" ", " · ").replace("\0", " ") for line in rest]
        rows += [f"{start if number == 0 else '':>5}  {line}" for number, line in enumerate(cells)]
    return rows


def figure() -> str:
    """The picture as text. Raises AssertionError where the compiler lays a struct out in another way."""
    known, compiled = structs(), layout()
    drawn = []
    for name, when in _DRAWN.items():
        assert known[name].size == compiled[name], f"{name}: {known[name].size} by flow.pxd, {compiled[name]} compiled"
        drawn += [f"{name}, {compiled[name]} bytes – {when}", *_lines(known[name]), ""]
    drawn.append("taken when it first occurs, bytes each:")
    for name, when in _BLOCKS.items():
        assert name not in known or known[name].size == compiled[name], name
        drawn.append(f"{compiled[name]:>5}  {name} – {when}")
    return "```text\n" + "\n".join(drawn) + "\n```"
