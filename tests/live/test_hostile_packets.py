"""Packets that mean ill, sent over a cable to a running `synfin live`: it goes on, and each of them is counted."""

from __future__ import annotations

import contextlib
import errno
import json
import random
import re
import signal
import socket
import struct

import pytest
from processes import TIMEOUT, end, sidecar, stored, until

from corpus import ROOT, needs_captures
from dialogue import START, Dialogue, ethernet, write_pcap
from property.talk import talk
from rows import fast
from synfin._core.batch import PacketBatch
from synfin.errors import SynfinError
from synfin.settings import Settings
from synfin.sources.captures import CaptureInput
from tunnels import AROUND, fits, wrapped

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespaces")]

_SOL_PACKET, _PACKET_STATISTICS, _ETH_P_ALL = 263, 6, 3
_HEADER, _TAG = 14, 4
MTU, LARGEST_MTU = 1500, 65535
SNAPLEN = 512  # what `synfin live` takes of each packet
GOOD = range(61_000, 61_020)


def captured():
    """Frames of the hostile captures, as far as they can be read; what is of another link layer goes for Ethernet."""
    frames, batch = [], PacketBatch()
    for path in sorted((ROOT / "hostile").rglob("*")):
        if path.is_file() and path.suffix not in (".tsv", ".md"):
            with contextlib.suppress(SynfinError), CaptureInput([str(path)]) as source:
                while source.fill(batch):
                    frames += [packet[0] for packet in batch.packets()]
    return frames


def made():
    """Random talk, tunnels cut at every byte, and both with bytes that are wrong."""
    frames = [p.data for seed in range(100) for packets in talk(random.Random(seed))[0] for p in packets]
    chance = random.Random(7)
    segment = Dialogue().handshake().packets[0].data[_HEADER:]
    for name in AROUND:
        if fits(name, 4):
            whole = ethernet(wrapped(name, segment))
            frames += [whole[:length] for length in range(len(whole) + 1)]
    for frame in chance.choices(frames, k=3000):
        wrong = bytearray(frame)
        for _ in range(chance.choice([1, 1, 2, 8])):
            if len(wrong) > _HEADER:
                wrong[chance.randrange(12, len(wrong))] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        frames.append(bytes(wrong))
    return frames


def tagged(frame):
    return frame[:12] + b"\x81\0\0\7" + frame[12:]


def has_tag(frame):
    return frame[12:14] in (b"\x81\0", b"\x88\xa8")


def send(namespace, frames, mtu):
    """Send frames, those that the interface does not take whole cut to what it takes; gives what was sent, and how many
    were cut, and left out because they are no frames at all.
    """
    sent, cut, left_out = [], 0, 0
    with namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
        sender.bind(("va", 0))
        for frame in frames:
            if len(frame) < _HEADER:
                left_out += 1
                continue
            try:
                sender.send(frame)
            except OSError as error:
                assert error.errno == errno.EMSGSIZE and len(frame) > mtu + _HEADER
                sent.append(frame[: mtu + _HEADER])
                sender.send(sent[-1])
                cut += 1
            else:
                sent.append(frame)
    return sent, cut, left_out


def reaches_sockets(frame):
    """Linux takes the outer tag off before packet sockets look, and throws away a frame that ends within it or the type
    behind it (skb_vlan_untag), which no counter tells.
    """
    return not has_tag(frame) or len(frame) >= _HEADER + _TAG + 2


def skips_of(frames, snaplen, path):
    """Skips by name of the same frames in a file; the kernel cuts them without the tag that it took off."""
    packets = []
    for number, frame in enumerate(frames):
        length = snaplen + _TAG * has_tag(frame)
        packets.append((START + number * 1000, frame[:length], len(frame)))
    _, _, stats = fast([write_pcap(path, packets)], Settings())
    return {name: count for name, count in stats["skips"].items() if count}


def counting(interface):
    """A socket that only counts: a second opinion on what came."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.bind((interface, _ETH_P_ALL))
    return sock


MODES = {
    "usual": ((), SNAPLEN, MTU),
    "workers": (("--workers", "3"), SNAPLEN, MTU),
    "short": (("--snaplen", "64"), 64, MTU),
    "whole": (("--snaplen", "65535"), 65535, LARGEST_MTU),
    "not promiscuous": (("--no-promiscuous",), SNAPLEN, MTU),
    "tagged": ((), SNAPLEN, MTU),
    "tagged, workers": (("--workers", "3"), SNAPLEN, MTU),
}


def asked(namespace, path):
    """What the endpoint answers."""
    with namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(TIMEOUT)
        client.connect(("127.0.0.1", 9108))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return b"".join(iter(lambda: client.recv(65536), b"")).decode()


def test_more_than_the_ring_holds(cable, tmp_path):
    """While the process stands still: what had no room is counted, and the next connection is tracked."""
    left, right = cable
    right.ip("link set lo up")
    frames = made()
    good = [p.data for port in GOOD for p in Dialogue(a_ip="192.0.2.1", a_port=port).handshake().close().packets]
    how = ("--ring", 2, "--metrics", 9108, "--json", "-o", tmp_path / "rows")
    with right.call(counting, "vb") as counter, sidecar(right, tmp_path, "vb", *how) as (process, _):
        process.send_signal(signal.SIGSTOP)
        hostile = [frame for _ in range(3) for frame in send(left, frames, MTU)[0]]
        process.send_signal(signal.SIGCONT)

        def told():
            text = asked(right, "/metrics")
            names = ("packets", "ring_dropped_packets", "ring_packets")
            return [float(re.search(rf"^synfin_{name}_total\S* (\S+)$", text, re.MULTILINE)[1]) for name in names]

        total = sum(map(reaches_sockets, hostile))
        until(lambda: (seen := told())[0] + seen[1] == seen[2] == total, "packets that are nowhere")
        sent = hostile + send(left, good, MTU)[0]
        code, out, err = end(process)
        seen, _ = struct.unpack("II", counter.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
    summary = json.loads(out)
    capture, accounting = summary["capture"], summary["accounting"]
    assert code == 0 and f"warning packets_dropped count={capture['ring_drops']} " in err
    assert seen == capture["ring_packets"] == sum(map(reaches_sockets, sent))
    assert capture["holds"] and accounting["holds"] and capture["ring_drops"] > 1000
    tracked_or_skipped = sum(count for name, count in accounting.items() if name not in ("packets", "holds"))
    assert seen == tracked_or_skipped + capture["ring_drops"]
    rows = [row for row in stored(tmp_path / "rows", "flows") if row["client_ip"] == "192.0.2.1"]
    assert sorted((row["client_port"], row["close"]) for row in rows) == [(port, "fin_4way") for port in GOOD]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("origin", [made, pytest.param(captured, marks=needs_captures)], ids=["made", "captured"])
def test_each_is_counted_and_the_next_connection_tracked(cable, tmp_path, record_property, origin, mode):
    left, right = cable
    options, snaplen, mtu = MODES[mode]
    left.ip(f"link set va mtu {mtu}")
    right.ip(f"link set vb mtu {mtu}")
    frames = [tagged(frame) for frame in origin()] if mode.startswith("tagged") else origin()
    good = [p.data for port in GOOD for p in Dialogue(a_ip="192.0.2.1", a_port=port).handshake().close().packets]
    with (
        right.call(counting, "vb") as counter,
        sidecar(right, tmp_path, "vb", "-o", tmp_path / "rows", "--json", *options) as (process, _),
    ):
        hostile, cut, left_out = send(left, frames, mtu)
        sent = hostile + send(left, good, mtu)[0]
        code, out, err = end(process)
        seen, _ = struct.unpack("II", counter.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
    assert (code, err) == (0, "")
    summary = json.loads(out)
    record_property("hostile frames", f"{len(hostile)} sent, of them {cut} cut; {left_out} left out")
    came = [frame for frame in sent if reaches_sockets(frame)]
    assert len(came) + left_out >= 0.9 * len(frames) and len(hostile) > 2000
    # Sent is what the ring got; that is what was tracked, what was skipped and what was dropped.
    capture, accounting = summary["capture"], summary["accounting"]
    assert seen == capture["ring_packets"] == len(came)
    assert capture["holds"] and capture["ring_packets"] == summary["packets"] + capture["ring_drops"]
    assert accounting["holds"] and capture["ring_drops"] == 0
    skips = {name: count for name, count in accounting.items() if name not in ("packets", "in_records", "holds")}
    assert skips == skips_of(came, snaplen, tmp_path / "same.pcap")
    rows = stored(tmp_path / "rows", "flows")
    assert sum(row["client_packets"] + row["server_packets"] for row in rows) == accounting["in_records"]
    ours = [(row["client_port"], row["handshake"], row["close"]) for row in rows if row["client_ip"] == "192.0.2.1"]
    assert sorted(ours) == [(port, "complete", "fin_4way") for port in GOOD]
