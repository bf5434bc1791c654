"""Images of a ring: those made of a capture give its rows, and one that the kernel wrote gives what was sent."""

import random
import socket
import sys
import threading
import time
from pathlib import Path

import pytest
import ring_image

from dialogue import SECOND, START, Dialogue, merge, write_pcap
from rows import fast, rows_of
from synfin.run import Run
from synfin.settings import Settings

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

_PLACE = ("first_file", "first_packet", "interface")


def talk(count, **how):
    chance, made = random.Random(4), []
    for number in range(count):
        six = {"a_ip": "2001:db8::1", "b_ip": "2001:db8::2"} if number % 2 else {}
        d = Dialogue(a_port=2000 + number, start=START + number * 1_000_003, **six, **how).handshake()
        for _ in range(chance.randrange(20)):
            d.data(d.a, chance.randrange(1, 1400))
            d.data(d.b, chance.randrange(1, 1400))
        made.append(d.close() if number % 3 else d)
    return merge(*made)


def rows_by(source):
    run = Run(source, Settings())
    rows = [row for table, block in run.blocks() if table == "flows" for row in rows_of(block, "flows")]
    return without_place(rows), run.tracker.stats()["packets"]


def without_place(rows):
    return sorted(({k: v for k, v in row.items() if k not in _PLACE} for row in rows), key=lambda row: row["flow_id"])


@pytest.mark.parametrize("count", [1, 2], ids=["one ring", "a ring for each direction"])
def test_rows_are_those_of_the_capture(tmp_path, count, monkeypatch):
    monkeypatch.setattr(ring_image, "BLOCK_BYTES", 1 << 14)
    packets = talk(200)
    capture = write_pcap(tmp_path / "x.pcap", packets)
    paths = [tmp_path / f"x.ring{which}" for which in range(count)]
    ring_image.lay_out(capture, paths)
    assert all(path.stat().st_size > 10 * ring_image.BLOCK_BYTES for path in paths)
    flows, _, _ = fast([capture])
    for _ in range(2):  # walking changes nothing in the file
        assert rows_by(ring_image.ImageSource(paths)) == (without_place(flows), len(packets))


@pytest.mark.kernel
def test_what_the_kernel_wrote(tmp_path):
    from netns import Namespace, NotAllowed, veth

    packets = talk(40)
    try:
        with Namespace() as left, Namespace() as right:
            for namespace in (left, right):
                namespace.sysctl("ipv6/conf/default/disable_ipv6", 1)
            with veth(left, "va", right, "vb"):
                counts: list[int] = []
                recording = threading.Thread(
                    target=lambda: counts.append(right.call(ring_image.record, "vb", 1.0, tmp_path / "x.ring"))
                )
                recording.start()
                time.sleep(0.3)
                with left.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
                    sender.bind(("va", 0))
                    for packet in packets:
                        sender.send(packet.data)
                recording.join()
    except NotAllowed as reason:
        pytest.skip(str(reason))
    rows, count = rows_by(ring_image.ImageSource([tmp_path / "x.ring"]))
    assert count == len(packets) and counts[0] >= 1
    assert sorted((row["client_port"], row["client_packets"], row["close"]) for row in rows) == sorted(
        (row["client_port"], row["client_packets"], row["close"])
        for row in fast([write_pcap(tmp_path / "x.pcap", packets)])[0]
    )
    assert all(0 <= row["duration_ns"] < SECOND for row in rows)


def test_other_captures_are_refused(tmp_path):
    for how in ({"nanoseconds": False}, {"big_endian": True}, {"link_type": 101}):
        capture = write_pcap(tmp_path / "x.pcap", talk(1), **how)
        with pytest.raises(ValueError, match="no nanosecond pcap"):
            ring_image.lay_out(capture, [tmp_path / "x.ring"])
