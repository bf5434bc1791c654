"""Explained connections as text for people or as JSON, written while the run goes on and put in order at its end."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import textwrap
from collections.abc import Callable, Iterable
from typing import Any

from synfin.explain.dump import segment_text
from synfin.explain.errors import error_text, error_words
from synfin.explain.steps import IcmpError, Step
from synfin.explain.verdicts import verdicts
from synfin.explain.words import round_trips, words
from synfin.output.render import endpoint, instant

Row = dict[str, Any]
Piece = tuple[str, str]  # text and its style; "" for plain

_HELD_CHARACTERS = 1 << 14
_INDENT = 18
_STATE = 12
_SIDES = ("client", "server")
#: What of a tcpdump line stays together: the ends, or a field with its comma and brackets.
_FIELD = re.compile(r"IP6? \S+ > \S+: |[^,\[]+(?:\[[^\]]*\])?,? ?")
#: Rules of `words` whose words stand out, by style.
_STYLES = {
    "odd": "yellow", "odd_syn": "yellow", "odd_synack": "yellow", "rst_rejected": "yellow", "held": "yellow",
    "icmp_rejected": "yellow", "icmp_unreachable": "bold red", "capture_duplicate": "dim",
    "rst": "bold red", "completes": "green", "closed": "green",
}  # fmt: skip


def dotted(ip: str, port: int) -> str:
    """An end as tcpdump writes it."""
    return f"{ip}.{port}"


def step_facts(step: Step | IcmpError, start_ns: int) -> dict[str, Any]:
    """One segment or ICMP error as plain data; `start_ns` is when the record began. An error has no sender."""
    if isinstance(step, IcmpError):
        sender, text, said, rtt = None, error_text(step), [error_words(step)], []
    else:
        source, target = (dotted(step.address(side), step.segment[f"{side}_port"]) for side in ("src", "dst"))
        sender, text = step.sender, " ".join(segment_text(step.segment, source, target))
        said, rtt = words(step), round_trips(step)
    return {
        "file": step.file,
        "packet": step.number,
        "time_ns": step.time_ns,
        "since_ns": step.time_ns - start_ns,
        "sender": sender,
        "segment": text,
        "client_state": step.row["client_state"],
        "server_state": step.row["server_state"],
        "words": [{"rule": name, "text": text} for name, text in said],
        "rtt": rtt,
    }


class Spool:
    """Text kept aside, in one temporary file for all records."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (it goes with the last reference)

    def put(self, text: str) -> tuple[int, int]:
        """Keep a text; the answer gives it back."""
        at = self._file.seek(0, os.SEEK_END)
        return at, self._file.write(text.encode())

    def get(self, place: tuple[int, int]) -> str:
        """A text by what `put` answered."""
        self._file.seek(place[0])
        return self._file.read(place[1]).decode()


class Record:
    """What is said of one record, kept aside until its end.

    Parameters
    ----------
    write : makes text of one segment's facts and those of the one before it (None: it is the first).
    spool : where text goes that would take much memory.
    """

    def __init__(self, write: Callable[[dict[str, Any], dict[str, Any] | None], str], spool: Spool):
        self._write = write
        self._spool = spool
        self._start_ns: int | None = None
        self._last: dict[str, Any] | None = None
        self._places: list[tuple[int, int]] = []
        self._text: list[str] = []
        self._size = 0

    def tell(self, step: Step | IcmpError) -> None:
        """Take one segment or ICMP error."""
        if self._start_ns is None:
            self._start_ns = step.time_ns if step.row["first_packet"] == step.number else step.row["first_seen"]
        facts = step_facts(step, self._start_ns)
        self._text.append(self._write(facts, self._last))
        self._size += len(self._text[-1])
        self._last = facts
        if self._size > _HELD_CHARACTERS:
            self._places.append(self._spool.put("".join(self._text)))
            self._text, self._size = [], 0

    def copy(self, out: Callable[[str], None]) -> None:
        """Write everything that was told."""
        for place in self._places:
            out(self._spool.get(place))
        out("".join(self._text))


# ------------------------------------------------------------------------------------------------ text


class Text:
    """Text for a terminal of `width` columns, with colours (`rich`) or plain."""

    def __init__(self, width: int | None = None, colours: bool = False):
        self.width = max(72, min(width or shutil.get_terminal_size((110, 24)).columns, 140))
        self._console: Any = None
        if colours:
            from rich.console import Console

            self._console = Console(force_terminal=True, width=self.width, highlight=False)

    def _line(self, *pieces: Piece) -> str:
        if self._console is None:
            return "".join(text for text, _ in pieces).rstrip() + "\n"
        from rich.text import Text as Styled

        with self._console.capture() as captured:
            self._console.print(Styled.assemble(*pieces), soft_wrap=True)
        return captured.get()

    def step(self, facts: dict[str, Any], last: dict[str, Any] | None) -> str:
        """A segment: its tcpdump line, then both ends' states and the words."""
        lines = []
        if last is not None and last["file"] != facts["file"]:
            lines.append(self._line((f"{facts['file']}:", "dim")))
        lines += self._dump(facts)
        said = [(word["text"], _STYLES.get(word["rule"], "")) for word in facts["words"]]
        said += [(sample["words"], "cyan") for sample in facts["rtt"]]
        states: list[Piece] = []
        for side in _SIDES:
            state = facts[f"{side}_state"]
            moved = last is None or last[f"{side}_state"] != state
            states += [(state.ljust(_STATE), "bold" if moved else ""), ("  ", "")]
        lines += self._said(states, f"{facts['sender']} " if facts["sender"] else "", said)
        return "".join(lines)

    def _dump(self, facts: dict[str, Any]) -> list[str]:
        head = f"{facts['packet']:>6} {facts['since_ns'] / 1e9:>+10.6f} ".ljust(_INDENT)
        lines, line, indent = [], head, " " * _INDENT
        for field in _FIELD.findall(facts["segment"]):
            if len(line) + len(field.rstrip()) > self.width and line.strip() and line != head:
                lines.append(line)
                line = indent
            line += field
        lines = [part for line in (*lines, line) for part in self._cut(line, indent)]
        return [self._line((text, "dim" if i else "")) for i, text in enumerate(lines)]

    def _cut(self, line: str, indent: str) -> list[str]:
        # A field that is longer than a line: options, breakable at their commas.
        parts = []
        while len(line.rstrip()) > self.width:
            at = line.rfind(",", _INDENT + 1, self.width) + 1 or self.width
            parts.append(line[:at])
            line = indent + line[at:]
        return [*parts, line]

    def _said(self, states: list[Piece], sender: str, said: list[Piece]) -> list[str]:
        indent = _INDENT + 2 * (_STATE + 2)
        lines, line, used = [], [(" " * _INDENT, ""), *states, (sender, "")], indent + len(sender)
        for i, (text, style) in enumerate(said):
            for word in (text + (";" if i < len(said) - 1 else "")).split(" "):
                if used + len(word) > self.width and used > indent:
                    lines.append(self._line(*line))
                    line, used = [(" " * indent, "")], indent
                line.append((word + " ", style))
                used += len(word) + 1
        return [*lines, self._line(*line)]

    def head(self, row: Row) -> str:
        """What stands above a record's segments."""
        client, server = (endpoint(row[f"{side}_ip"], row[f"{side}_port"]) for side in _SIDES)
        title = [(client, "bold"), (" (client) and ", ""), (server, "bold"), (" (server)", "")]
        columns = f"{'packet':>6} {'time (s)':>10} ".ljust(_INDENT) + "segment as tcpdump -n -S writes it"
        states = " " * _INDENT + "client".ljust(_STATE + 2) + "server".ljust(_STATE + 2) + "what the segment did"
        about = f"flow {row['flow_id']}, from {instant(row['first_seen'])} UTC, in {row['first_file']}"
        return "".join((self._line(*title), self._line((about, "")), "\n", self._line((columns, "dim")), self._line((states, "dim")), "\n"))  # fmt: skip

    def tail(self, row: Row) -> str:
        """The verdicts."""
        lines = ["\n", self._line(("Verdicts", "bold"))]
        for verdict in verdicts(row):
            value = verdict["value"]
            label = f"{verdict['column']} = {value}" if isinstance(value, str) else verdict["column"]
            lines += [
                self._line((line, ""))
                for line in _fill(f"{verdict['words']}  [{verdict['rule']}]", self.width, f"  {label:<30}  ", " " * 34)
            ]
        return "".join(lines)

    def document(self, records: Iterable[tuple[Record, Row]], out: Callable[[str], None]) -> None:
        """All records, one after another."""
        for i, (record, row) in enumerate(records):
            if i:
                out("\n" + "-" * min(self.width, 100) + "\n\n")
            out(self.head(row))
            record.copy(out)
            out(self.tail(row))


def _fill(text: str, width: int, first: str, other: str) -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=other, break_long_words=False, break_on_hyphens=False
    )


# ------------------------------------------------------------------------------------------------ JSON


class Json:
    """One JSON object for all records."""

    def step(self, facts: dict[str, Any], last: dict[str, Any] | None) -> str:
        """A segment as an element of an array."""
        return ("" if last is None else ",\n") + "   " + json.dumps(facts)

    def document(
        self, records: Iterable[tuple[Record, Row]], about: dict[str, Any], out: Callable[[str], None]
    ) -> None:
        """Everything; `about` stands beside the records."""
        out("{\n")
        for name, value in about.items():
            out(f" {json.dumps(name)}: {json.dumps(value)},\n")
        out(' "connections": [')
        for i, (record, row) in enumerate(records):
            out(("," if i else "") + f'\n  {{"flow_id": {row["flow_id"]}, "segments": [\n')
            record.copy(out)
            out(f'\n  ],\n  "verdicts": {json.dumps(verdicts(row))},\n  "row": {json.dumps(row)}}}')
        out("\n ]\n}\n")
