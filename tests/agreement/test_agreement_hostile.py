"""Corrupt and odd files: read or refused with file and offset, and what capinfos makes of the same file.

Where one of the two reads a file that the other refuses, or another number of packets, one of REASONS must hold: a rule over
what both say, never a list of files.
"""

from __future__ import annotations

import pytest
from containers import REASONS, cases, results

from corpus import ROOT

pytestmark = pytest.mark.skipif(not ROOT.exists(), reason="SYNFIN_CAPTURES names no folder of captures")

SECONDS = 5  # a file


def test_each_is_read_or_refused_in_time():
    assert len(results()) > 450
    assert {str(path): one["seconds"] for path, one in results().items() if one["seconds"] > SECONDS} == {}


def test_what_was_read_adds_up():
    for path, one in results().items():
        assert one["packets"] == one["in_records"] + one["skipped"], path


def test_a_fault_names_file_and_place():
    for path, one in results().items():
        if one["fault"]:
            assert str(path) in one["fault"], one
            assert "byte offset" in one["fault"] or "not a capture" in one["fault"], one


def test_the_container_files_are_read_to_their_end():
    """What stands in `format/` is odd but sound; only what says itself that it is broken may be refused."""
    refused = {path.name: one["fault"] for path, one in results().items() if "format" in path.parts and one["fault"]}
    assert refused == {}


def test_capinfos_reads_as_much_or_there_is_a_reason():
    differing = [case for case in cases() if not case.same()]
    unexplained = [
        (case.path.name, case.fault, case.synfin["packets"], case.exit, case.packets, case.message)
        for case in differing
        if not any(rule(case) for _, rule, _ in REASONS)
    ]
    assert unexplained == []
    assert len(differing) < 20


def test_every_reason_is_needed():
    differing = [case for case in cases() if not case.same()]
    assert [name for name, rule, _ in REASONS if not any(rule(case) for case in differing)] == []
