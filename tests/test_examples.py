"""Every capture of examples/ against what its recording script, ``ss`` and ``nstat`` said (examples/expect.jsonl)."""

from __future__ import annotations

import ctypes
import errno
import json
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import synfin

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
TRUTHS: list[dict[str, Any]] = [json.loads(line) for line in (EXAMPLES / "expect.jsonl").read_text().splitlines()]
ENDS = ("client_ip", "client_port", "server_ip", "server_port")


def track_slowly(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The same from the slow tracker."""
    reference = pytest.importorskip("synfin.reference", reason="the slow tracker needs dpkt")
    result = reference.track(reference.read([path]))
    rows = sorted(result.flows, key=lambda row: row["first_seen"])
    in_records = sum(row["client_packets"] + row["server_packets"] for row in rows)
    return rows, {"packets": result.packets, "packets_in_records": in_records, "skips": result.skips}


def track(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows in the order of their first packets, and the run's account."""
    stream = synfin.scan(path)
    rows = stream.to_pylist()
    assert stream.stats is not None
    return sorted(rows, key=lambda row: row["first_seen_ns"]), stream.stats


def by_ends(rows: list[dict[str, Any]]) -> dict[tuple[object, ...], list[dict[str, Any]]]:
    """Rows grouped by both ends, in order: the records of one pair of ends follow each other."""
    groups = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in ENDS)].append(row)
    return groups


def differences(row: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """What is not as expected: a value, ``{"min": n}`` or ``{"in": [...]}``."""
    found = []
    for column, wanted in expected.items():
        value = row[column]
        if isinstance(wanted, dict):
            good = value in wanted["in"] if "in" in wanted else value is not None and value >= wanted["min"]
        else:
            good = value == wanted
        if not good:
            found.append(f"{column} is {value!r}, expected {wanted!r}")
    return found


def compare(rows: list[dict[str, Any]], expected: list[dict[str, Any]]) -> list[str]:
    """Every difference between tracked and expected rows, records that are missing or too many included."""
    tracked, wanted = by_ends(rows), by_ends(expected)
    found = [f"record that nobody made: {ends}" for ends in tracked.keys() - wanted.keys()]
    for ends, group in wanted.items():
        if len(tracked[ends]) != len(group):
            found.append(f"{ends}: {len(tracked[ends])} records, expected {len(group)}")
            continue
        for row, facts in zip(tracked[ends], group, strict=True):
            found += [f"{ends}: {text}" for text in differences(row, facts)]
    return found


def check_account(rows: list[dict[str, Any]], stats: dict[str, Any], packets: int) -> None:
    """The accounting identity, against the number of packets that the recorder wrote."""
    in_records = sum(row["client_packets"] + row["server_packets"] for row in rows)
    assert in_records == stats["packets_in_records"]
    assert packets == stats["packets"] == in_records + sum(stats["skips"].values())


def expected_rows(truth: dict[str, Any], *, in_set: bool) -> list[dict[str, Any]]:
    """Expected rows of one capture, read alone or as part of the folder."""
    rows = []
    for row in truth["rows"]:
        plain = {name: value for name, value in row.items() if name != "in_set"}
        rows.append({**plain, **row.get("in_set", {})} if in_set else plain)
    return rows


def test_every_capture_has_a_truth_and_a_line_in_the_readme() -> None:
    captures = sorted(path.name for path in EXAMPLES.glob("[0-9][0-9]-*"))
    assert captures == [truth["capture"] for truth in TRUTHS]
    readme = (EXAMPLES / "README.md").read_text()
    assert [name for name in captures if f"| {name} |" not in readme] == []


@pytest.mark.parametrize("tracker", [track, track_slowly], ids=["core", "reference"])
@pytest.mark.parametrize("truth", TRUTHS, ids=lambda truth: truth["capture"])
def test_rows(truth: dict[str, Any], tracker: Callable[[Path], tuple[list[dict[str, Any]], dict[str, Any]]]) -> None:
    rows, stats = tracker(EXAMPLES / truth["capture"])
    assert compare(rows, expected_rows(truth, in_set=False)) == []
    check_account(rows, stats, truth["packets"])


def test_the_folder_as_one_set() -> None:
    rows, stats = track(EXAMPLES)
    expected = [row for truth in TRUTHS for row in expected_rows(truth, in_set=True)]
    assert compare(rows, expected) == []
    check_account(rows, stats, sum(truth["packets"] for truth in TRUTHS))


def kernel_sums(rows: list[dict[str, Any]], side: str) -> dict[str, int]:
    """The kernel counters of one host as sums of columns (RFC 4022 says what they count).

    A resent SYN, SYN-ACK or FIN is a retransmitted segment for the kernel; synfin counts it in its own column.
    """
    resent = 0
    for row in rows:
        opening = row["syn_count"] if side == "client" else row["synack_count"]
        resent += row[f"{side}_retransmitted_segments"] + max(0, opening - 1) + max(0, row[f"{side}_fin_count"] - 1)
    return {"TcpRetransSegs": resent, "TcpOutRsts": sum(row[f"{side}_rst_count"] for row in rows)}


@pytest.mark.parametrize("truth", TRUTHS, ids=lambda truth: truth["capture"])
def test_resends_and_resets_are_those_that_the_kernels_counted(truth: dict[str, Any]) -> None:
    rows, _ = track(EXAMPLES / truth["capture"])
    if any(row["simultaneous_open"] for row in rows):
        pytest.skip("two SYNs and two SYN-ACKs: the columns do not say which end sent how many")
    for side in truth["seen_whole"]:
        sums = kernel_sums(rows, side)
        assert sums == {name: truth["nstat"][side][name] for name in sums}, side


def test_the_recorder_says_why_it_cannot_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES.parent / "tools")
    import netns
    import record_examples

    def refuse(_: int) -> int:
        ctypes.set_errno(errno.EPERM)
        return -1

    monkeypatch.setattr(netns._libc, "unshare", refuse)
    monkeypatch.setattr(sys, "argv", ["record_examples.py", str(tmp_path)])
    assert record_examples.main() == 3
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
