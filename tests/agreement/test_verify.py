"""`synfin verify` itself: it must tell a wrong figure from one that a rule explains, and say so in its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from synfin.cli.verify import verify as command
from synfin.verify import tools
from synfin.verify.run import verify

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
needs_tshark = pytest.mark.skipif(tools.version("tshark") is None, reason="tshark is not on the PATH")


@pytest.fixture
def doctored(monkeypatch):
    """tshark whose output is changed before it is read."""

    def doctor(change):
        real = tools.tshark

        def changed(path):
            lives = real(path)
            change(lives)
            return lives

        monkeypatch.setattr(tools, "tshark", changed)

    return doctor


@needs_tshark
@pytest.mark.parametrize("capture", sorted(EXAMPLES.glob("*.pcap*")), ids=lambda path: path.name)
def test_every_example_is_explained(capture):
    report = verify(str(capture))
    assert [(one.column, one.ours, one.theirs, one.parts) for one in report.unexplained] == []
    for joined in report.joined:
        assert joined.mine == joined.others == joined.matched > 0


@needs_tshark
@pytest.mark.parametrize("column", ["packets", "payload_bytes", "syn", "fin_count", "rst_count", "retransmitted"])
def test_a_changed_count_is_unexplained(doctored, column):
    def one_more(lives):
        lives[0].ways[0][column] += 1

    doctored(one_more)
    result = CliRunner().invoke(command, [str(EXAMPLES / "20-close-4way.pcap"), "--json"], standalone_mode=False)
    assert result.return_value == 1
    (report,) = json.loads(result.output)
    name = column.removesuffix("_count")
    (wrong,) = [one for one in report["tools"][0]["differences"] if one["column"] == name]
    assert [part["name"] for part in wrong["classes"]] == ["unexplained"]
    assert wrong["other"] == wrong["synfin"] + 1
    assert wrong["explain"][0].startswith("synfin explain ")


@needs_tshark
@pytest.mark.parametrize(("column", "value"), [("mss", 1), ("isn", 5), ("window_scale", 14), ("fin", 7)])
def test_a_changed_value_is_unexplained(doctored, column, value):
    doctored(lambda lives: lives[0].ways[0].update({column: value}))
    assert [one.theirs for one in verify(str(EXAMPLES / "20-close-4way.pcap")).unexplained] == [value]


@needs_tshark
def test_a_lost_packet_is_unexplained_and_named(doctored):
    numbers = []

    def lose(lives):
        lost = lives[0].packets.pop(4)
        lives[0].ways[lives[0].pair.index(lost.src)]["packets"] -= 1
        numbers.append(lost.number)

    doctored(lose)
    result = CliRunner().invoke(command, [str(EXAMPLES / "20-close-4way.pcap")], standalone_mode=False)
    assert result.return_value == 1
    assert f"packets {numbers[0]}\n" in result.output
    assert "--flow " in result.output


@needs_tshark
def test_the_table_says_what_is_equal():
    result = CliRunner().invoke(command, [str(EXAMPLES / "31-port-reuse.pcap")], standalone_mode=False)
    assert result.return_value == 0
    assert "nothing unexplained" in result.output
    assert "2 rows matched of 2 by synfin and 2 by tshark" in result.output


def test_without_other_tools_the_slow_tracker_is_compared(monkeypatch):
    monkeypatch.setattr(tools.shutil, "which", lambda _: None)
    report = verify(str(EXAMPLES / "20-close-4way.pcap"))
    assert [joined.tool for joined in report.joined] == ["synfin.reference"]
    assert any("tshark is not on the PATH (apt install tshark)" in note for note in report.notes)
    assert report.unexplained == []
    assert report.joined[0].matched == 1
