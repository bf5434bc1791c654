"""`synfin verify` itself: it must tell a wrong figure from one that a rule explains, and say so in its exit code."""

from __future__ import annotations

import bz2
import json
import lzma
import shlex
import tempfile
from pathlib import Path

import lz4.frame
import pytest
import zstandard
from click.testing import CliRunner

import libpcap
from dialogue import SECOND, Dialogue, merge, write_pcap
from synfin.cli.main import cli, main
from synfin.cli.verify import verify as command
from synfin.verify import run, tools
from synfin.verify.run import verify
from synfin.verify.witness import watch

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


@pytest.mark.slow
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
    assert f", packets {numbers[0]} synfin explain " in " ".join(result.output.split())
    assert "--flow " in result.output


@needs_tshark
def test_the_packets_are_followed_once_for_all_tools(monkeypatch):
    asked = []

    def watched(path, pairs):
        asked.append(pairs)
        return watch(path, pairs)

    monkeypatch.setattr(run, "watch", watched)
    assert verify(str(EXAMPLES / "14-resends.pcap")).unexplained == []
    assert len(asked) == 1


@needs_tshark
def test_the_table_says_what_is_equal():
    result = CliRunner().invoke(command, [str(EXAMPLES / "31-port-reuse.pcap")], standalone_mode=False)
    assert result.return_value == 0
    assert "nothing unexplained" in result.output
    assert "2 rows matched of 2 by synfin and 2 by tshark" in result.output


def call(*arguments):
    """The exit code and what is printed."""
    result = CliRunner().invoke(command, [str(argument) for argument in arguments], standalone_mode=False)
    return result.return_value, result.output


def instant(packet):
    return f"{packet.time_ns // SECOND}.{packet.time_ns % SECOND:09}"


@pytest.fixture
def two_talks(tmp_path):
    """A capture of two connections side by side, and its packets."""
    talks = [Dialogue(b_port=port).handshake() for port in (80, 81)]
    for talk in talks:
        talk.data(talk.a, 100)
        talk.close()
    packets = merge(*talks)
    return write_pcap(tmp_path / "two.pcap", packets), packets


@needs_tshark
@libpcap.needs_libpcap
def test_a_filter_narrows_for_every_tool(two_talks):
    path, packets = two_talks
    code, out = call(path, "--json", "--filter", "port 81")
    (report,) = json.loads(out)
    assert code == 0 and report["narrowed"] == {"packets": len(packets) // 2, "filtered": len(packets) // 2}
    for tool in report["tools"]:
        assert tool["records"] == tool["connections"] == tool["matched"] == 1
        assert tool["columns"]["packets"]["compared"] == 2
    assert (
        f"--filter 'port 81': {len(packets)} packets = {len(packets) // 2} compared + "
        in call(path, "--filter", "port 81")[1]
    )


@needs_tshark
@pytest.mark.parametrize(("first", "last"), [(4, None), (None, 5), (3, 11)])
def test_a_window_narrows_for_every_tool(two_talks, first, last):
    path, packets = two_talks
    options = ["--from", instant(packets[first])] if first else []
    options += ["--to", instant(packets[last])] if last else []
    inside = [
        p
        for p in packets
        if (not first or p.time_ns >= packets[first].time_ns) and (not last or p.time_ns < packets[last].time_ns)
    ]
    (report,) = json.loads(call(path, "--json", *options)[1])
    assert report["unexplained"] == 0
    assert report["narrowed"] == {"packets": len(inside), "outside_window": len(packets) - len(inside)}


@needs_tshark
@libpcap.needs_libpcap
def test_a_part_is_told_by_the_numbers_and_ids_of_the_whole(two_talks, doctored):
    """What is unexplained in a part is looked up in the whole capture, narrowed in the same way."""
    path, packets = two_talks
    lost = []

    def lose(lives):
        (life,) = lives
        packet = life.packets.pop(2)
        life.ways[life.pair.index(packet.src)]["packets"] -= 1
        lost.append(packet)

    doctored(lose)
    options = ["--filter", "port 81", "--from", instant(packets[2]), "--to", "2100-01-01"]
    code, out = call(path, "--json", *options)
    differing = {one["column"]: one for one in json.loads(out)[0]["tools"][0]["differences"]}
    (number,) = differing["packets"]["classes"][0]["packets"]
    assert code == 1 and packets[number - 1].time_ns == lost[0].time
    assert number != lost[0].number
    (command,) = differing["packets"]["explain"]
    name, *words = shlex.split(command)
    assert name == "synfin"
    explained = CliRunner().invoke(cli, [*words, "--json"], standalone_mode=False)
    (connection,) = json.loads(explained.output)["connections"]
    assert number in [segment["packet"] for segment in connection["segments"]]
    assert connection["row"]["server_port"] == 81
    assert f", packets {number} synfin explain " in " ".join(call(path, *options)[1].split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--filter", "nonsense 7"], "nonsense 7"),
        (["--from", "yesterday"], "is not an instant"),
        (["--from", "2", "--to", "1"], "ends before it begins"),
    ],
)
def test_narrowing_that_means_nothing(capfd, options, message):
    with pytest.raises(SystemExit) as leaving:
        main(["verify", str(EXAMPLES / "01-unanswered.pcap"), *options])
    assert leaving.value.code == 2 and message in capfd.readouterr().err


def test_nothing_is_left_behind(two_talks, tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    call(two_talks[0], "--to", instant(two_talks[1][5]))
    assert list(folder.iterdir()) == []


# ------------------------------------------------------------------------------------- files that are not whole


WHOLE = EXAMPLES / "14-resends.pcap"


@pytest.mark.parametrize(
    ("data", "note", "compared"),
    [
        (WHOLE.read_bytes()[:24], None, False),
        (WHOLE.read_bytes()[:30], "truncated at byte offset 24", False),
        (WHOLE.read_bytes()[:24] + b"\xff" * 60, "corrupt at byte offset 24", False),
        (WHOLE.read_bytes()[:4000], "truncated at byte offset 3432", True),
        (WHOLE.read_bytes() + b"\xff" * 60, f"corrupt at byte offset {WHOLE.stat().st_size}", True),
    ],
    ids=["empty", "cut at once", "damaged at once", "cut", "damaged"],
)
@pytest.mark.parametrize("narrowed", [False, True])
def test_a_file_that_is_not_whole(tmp_path, data, note, compared, narrowed):
    path = tmp_path / "in.pcap"
    path.write_bytes(data)
    options = ("--from", "1970-01-01") if narrowed else ()
    code, out = call(path, *options)
    words = " ".join(out.split())
    assert ("nothing compared: no TCP connection" in words) != compared
    assert ("nothing unexplained" in words) == compared
    assert note is None or f"{path}: {note}" in words
    assert code == int(not (compared and "corrupt" not in (note or "")))
    assert ("in what could be read" in words) == ("corrupt" in (note or ""))
    assert "/synfin-" not in out  # the temporary capture is nobody's concern


@needs_tshark
@pytest.mark.parametrize(
    "pack", [lzma.compress, bz2.compress, zstandard.compress, lz4.frame.compress], ids=["xz", "bzip2", "zstd", "lz4"]
)
def test_what_other_tools_cannot_unpack_is_unpacked_for_them(tmp_path, pack):
    path = tmp_path / "in.packed"
    path.write_bytes(pack(WHOLE.read_bytes()))
    plain, packed = (json.loads(call(capture, "--json")[1])[0] for capture in (WHOLE, path))
    assert (packed["notes"], packed["compared"], "narrowed" in packed) == ([], plain["compared"], False)
    assert [tool["columns"] for tool in packed["tools"]] == [tool["columns"] for tool in plain["tools"]]


def test_of_several_the_others_are_compared(tmp_path):
    other = tmp_path / "no.pcap"
    other.write_text("hello, world\n" * 9)
    code, out = call(other, EXAMPLES / "01-unanswered.pcap")
    assert code == 1 and "not a capture" in out and "nothing unexplained" in out
    code, out = call(EXAMPLES / "01-unanswered.pcap", other, "--json")
    assert code == 1 and [report["complete"] for report in json.loads(out)] == [True, False]
    with pytest.raises(SystemExit) as leaving:
        main(["verify", str(other)])
    assert leaving.value.code == 2


@pytest.mark.parametrize(("terminal", "width"), [(40, 80), (80, 80), (97, 97), (300, 120)])
def test_lines_fit(monkeypatch, tmp_path, doctored, terminal, width):
    """Names of files and commands stay whole."""
    path = tmp_path / "in.pcap"
    path.write_bytes(WHOLE.read_bytes()[:-1])
    monkeypatch.setenv("COLUMNS", str(terminal))
    doctored(lambda lives: lives[0].ways[0].update(mss=1))
    lines = [line for line in call(path)[1].splitlines() if str(path) not in line]
    assert "differing" in "".join(lines) and max(map(len, lines)) <= width
    assert max(map(len, lines)) > width - 12 or tools.version("tshark") is None


def test_without_other_tools_the_slow_tracker_is_compared(monkeypatch):
    monkeypatch.setattr(tools.shutil, "which", lambda _: None)
    report = verify(str(EXAMPLES / "20-close-4way.pcap"))
    assert [joined.tool for joined in report.joined] == ["synfin.reference"]
    assert any("tshark is not on the PATH (apt install tshark)" in note for note in report.notes)
    assert report.unexplained == []
    assert report.joined[0].matched == 1
