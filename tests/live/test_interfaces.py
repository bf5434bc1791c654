"""`synfin live` on real interfaces, in network namespaces."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import time

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hosts import Hosts, exchange, receive, reset_on_close
from netns import Namespace
from taps import TIMEOUT as _TIMEOUT
from taps import drain, finish, received, send, until
from wire import write_pcap as write_wire

import synfin
from dialogue import Dialogue, write_pcap
from rows import fast
from synfin._core.batch import PacketBatch
from synfin.errors import CaptureOpenError, ConfigError
from synfin.run import Run
from synfin.schema import FLOWS, INTERVALS
from synfin.settings import Settings
from synfin.sources import packet_socket
from synfin.sources.links import Link, Links
from synfin.sources.live import LiveInput

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespaces")]

#: What differs between a run of an interface and one of a recording beside it: the instants, by microseconds, and
#: what follows from them; and where the packets came from.
_OWN = {c.name for c in FLOWS if c.kind == "instant" or c.name.endswith("_ns")} | {
    "flow_id", "interface", "first_file", "first_packet",
}  # fmt: skip
_COUNTS = [c.name for c in INTERVALS[[c.name for c in INTERVALS].index("syns") :] if not c.name.endswith("_ns")]


@contextlib.contextmanager
def live(namespace, interface, *arguments):
    """`synfin live` in a process inside a namespace, once its socket receives."""
    process = namespace.popen(
        [sys.executable, "-m", "synfin", "live", interface, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        until(lambda: process.poll() is not None or _receives(process.pid), "no socket")
        yield process
    finally:
        process.kill()
        process.communicate(timeout=_TIMEOUT)


def _receives(pid):
    # Columns of /proc/net/packet: sk, references, type, protocol, interface, running, ...
    with contextlib.suppress(FileNotFoundError), open(f"/proc/{pid}/net/packet") as sockets:
        return any(line.split()[3] == "0003" and line.split()[5] == "1" for line in sockets.readlines()[1:])
    return False


def end(process, number=signal.SIGINT):
    """Send a signal; exit code, standard output and standard error."""
    process.send_signal(number)
    out, err = process.communicate(timeout=_TIMEOUT)
    return process.returncode, out, err


def compared(rows):
    """What must be equal, in an order that both runs have."""
    return sorted(
        ({name: value for name, value in row.items() if name.removesuffix("_ns") not in _OWN and name not in _OWN} for row in rows),
        key=lambda row: (row["client_port"], row["server_port"]),
    )


def talk(hosts):
    """Connections of several fates; each is over, or at rest, before the next begins."""
    listener = hosts.listen(80)

    def opened():
        client = hosts.socket("client")
        client.connect((hosts.server_ip, 80))
        server = hosts.accept(listener)
        exchange(client, server)
        return client, server

    for closer in ("client", "server", "neither", "abort", "half"):
        client, server = opened()
        first, second = (server, client) if closer == "server" else (client, server)
        if closer == "abort":
            reset_on_close(client)
            client.close()
        elif closer == "half":
            server.shutdown(socket.SHUT_WR)
        elif closer != "neither":
            first.close()
            receive(second, 1)
            second.close()
        hosts.wire.settle()
    with pytest.raises(ConnectionRefusedError):
        hosts.socket("client").connect((hosts.server_ip, 81))
    hosts.wire.settle()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
def test_rows_are_those_of_a_recording(tmp_path, ipv6, number):
    out, path = tmp_path / "rows", tmp_path / "wire.pcap"
    with Hosts(ipv6=ipv6, delay=0.003) as hosts, live(hosts.client, "eth0", "-o", out, "--json") as process:
        talk(hosts)
        code, text, err = end(process, number)
        hosts.wire.close()
        write_wire(path, hosts.wire.packets)
    assert (code, err) == (0, "")
    summary = json.loads(text)
    assert summary["complete"] is True and summary["reason"] is None
    assert summary["accounting"]["holds"] and summary["capture_drops"] == 0 and summary["interfaces"] == ["eth0"]
    rows = synfin_rows(out / "flows")
    recorded = synfin.scan(path).to_pylist()
    assert len(rows) == len(recorded) == 6
    assert compared(rows) == compared(recorded)
    assert {(row["interface"], row["first_file"], row["first_packet"]) for row in rows} == {("eth0", None, None)}
    assert {row["close"] for row in rows} > {None, "open", "rst", "half_closed"}
    assert sorted(row["handshake"] for row in rows) == ["complete"] * 5 + ["refused"]
    # Both tables are there, and what happened over time is the same but for the border between two seconds.
    intervals, recorded_intervals = synfin_rows(out / "intervals"), synfin.scan(path, table="intervals").to_pylist()
    for name in _COUNTS:
        if name not in ("capture_drops", "capture_duplicates"):
            assert sum(row[name] for row in intervals) == sum(row[name] for row in recorded_intervals), name
    assert {row["capture_drops"] for row in intervals} == {0}
    metadata = pq.read_metadata(next((out / "flows").rglob("*.parquet"))).metadata
    assert [metadata[name] for name in (b"complete", b"inputs", b"capture_drops")] == [b"true", b'["eth0"]', b"0"]


def synfin_rows(folder):
    """Rows of a folder of Parquet; instants as integers, which Python has no type for."""
    table = ds.dataset(folder).to_table()
    kinds = {c.name: c.kind for c in (*FLOWS, *INTERVALS)}
    for at, name in enumerate(table.schema.names):
        if kinds[name] == "instant":
            table = table.set_column(at, name, table[name].cast("int64"))
    return table.to_pylist()


def test_packets_that_just_came_are_in_the_rows(cable):
    """What stands in the open block when the run is stopped is handed over by the kernel's timer and tracked."""
    left, right = cable
    for _ in range(5):
        run = Run(right.call(LiveInput, "vb"), Settings())
        send(left, "va", [packet.data for packet in Dialogue().handshake().close().packets])
        flows, _ = finish(run)
        assert [(row["handshake"], row["close"]) for row in flows] == [("complete", "fin_4way")]
        assert received(run) == run.tracker.stats()["packets"] == 7


def test_nothing_enters_after_the_stop(cable):
    left, right = cable
    frames = [packet.data for packet in Dialogue().handshake().packets]
    source = right.call(LiveInput, "vb")
    send(left, "va", frames)
    source.stop()
    send(left, "va", frames * 50)
    _, _, run = drain(source)
    assert received(run) == run.tracker.stats()["packets"] == 3


def test_both_directions_of_an_interface(cable):
    """Packets that the host itself sends count, once."""
    left, _ = cable
    source = left.call(LiveInput, "va")
    send(left, "va", [packet.data for packet in Dialogue().handshake().packets])
    flows, _, run = drain(source)
    assert [row["handshake"] for row in flows] == ["complete"] and received(run) == 3


def test_time_goes_on_over_an_idle_link(tmp_path):
    """TIME-WAIT ends and interval rows are written although no packet comes any more."""
    out = tmp_path / "rows"
    with Hosts() as hosts:
        how = ("--time-wait", "300ms", "--reorder", "100ms", "--interval", "200ms", "--json", "-o", out, "--roll", "1s")
        with live(hosts.client, "eth0", *how) as process:
            client, server = hosts.open(80)
            client.close()
            receive(server, 1)
            server.close()
            hosts.wire.settle()

            def over_time():
                rows = synfin_rows(out / "intervals") if any((out / "intervals").rglob("*.parquet")) else []
                return sorted(rows, key=lambda row: row["interval_start"])

            until(lambda: any((out / "flows").rglob("*.parquet")), "no row")
            until(lambda: over_time() and over_time()[-1]["time_wait"] == 0, "no interval without TIME-WAIT")
            code, text, _ = end(process)
    assert code == 0 and json.loads(text)["at_end"]["time_wait"] == 0
    (row,) = synfin_rows(out / "flows")
    assert (row["time_wait_end"], row["client_state"], row["end_reason"]) == ("expired", "TIME-WAIT", "fin")
    intervals = over_time()
    assert max(i["time_wait_peak"] for i in intervals) == 1 and intervals[-1]["time_wait"] == 0
    expiry = row["time_wait_start"] + 300_000_000
    assert intervals[-1]["interval_start"] <= expiry < intervals[-1]["interval_start"] + 200_000_000
    assert intervals[-1]["complete"] is True


def test_idle_clock_follows_the_one_that_stamps(cable):
    left, right = cable
    batch = PacketBatch()
    with right.call(LiveInput, "vb") as source:
        assert source.fill(batch) and len(batch) == 0 and source.idle_clock_ns == 0
        send(left, "va", [packet.data for packet in Dialogue().handshake().packets])
        assert source.fill(batch) and len(batch) == 3
        last, before = batch.packets()[-1][1], time.time_ns()
        assert source.idle_clock_ns == last <= before
        used, began = time.process_time(), time.monotonic()
        for _ in range(5):
            assert source.fill(batch) and len(batch) == 0
            assert 0 <= time.time_ns() - source.idle_clock_ns < 10**9
        # It waits in the kernel and does not ask again and again.
        assert time.monotonic() - began > 0.4 and time.process_time() - used < 0.1
        assert source.idle_clock_ns > before


def test_drops_are_reported(cable):
    """A ring of two pages that nobody reads: what was sent is what was tracked and what was dropped."""
    left, right = cable
    source = right.call(LiveInput, "vb", ring_bytes=0, block_bytes=mmap.PAGESIZE)
    d = Dialogue().handshake()
    for _ in range(500):
        d.data(d.a, 300)
    sent = send(left, "va", [packet.data for packet in d.packets])
    flows, intervals, run = drain(source)
    packets = run.tracker.stats()["packets"]
    assert source.drops > 0 and packets > 0
    assert packets + source.drops == received(run) == len(sent)
    assert sum(row["capture_drops"] for row in intervals) == source.drops
    assert sum(row["client_packets"] + row["server_packets"] for row in flows) == packets
    assert f"the kernel dropped {source.drops:,} of {len(sent):,} packets" in " ".join(run.report.warnings)
    assert run.outcome.complete


@pytest.mark.parametrize("tags", [(0x8100,), (0x88A8,), (0x88A8, 0x8100), (0x8100, 0x8100)], ids=lambda tags: "+".join(map(hex, tags)))
def test_vlan_tag_is_restored(cable, tmp_path, tags):
    """802.1Q, 802.1ad alone and around 802.1Q, and two of 802.1Q."""
    left, right = cable
    d = Dialogue(vlans=(7, 5)[: len(tags)]).handshake()
    d.data(d.a, 100)
    d.close()
    packets = [packet._replace(data=tagged(packet.data, tags)) for packet in d.packets]
    batch = PacketBatch()
    sent = [packet.data for packet in packets]
    with right.call(LiveInput, "vb") as source:
        send(left, "va", sent)
        while len(batch) == 0:
            assert source.fill(batch)
        got = batch.packets()
    # The kernel took the outer tag off, and it is told apart from the bytes; the length is that of the wire.
    assert [packet[0] for packet in got] == [frame[:12] + frame[16:] for frame in sent]
    assert {packet[8] for packet in got} == {2}
    assert [packet[7] for packet in got] == [len(frame) for frame in sent]
    source = right.call(LiveInput, "vb")
    send(left, "va", sent)
    flows, _, _ = drain(source)
    recorded, _, _ = fast([write_pcap(tmp_path / "x.pcap", packets)])
    assert flows[0]["vlan_id"] == 7
    assert compared(flows) == compared(recorded)


def tagged(frame, tags):
    """The frame with these tag protocols, outermost first."""
    for number, kind in enumerate(tags):
        frame = frame[: 12 + 4 * number] + struct.pack("!H", kind) + frame[14 + 4 * number :]
    return frame


def test_promiscuous_while_it_listens(cable):
    """What is addressed to somebody else is seen, and the interface goes back when the run ends."""
    _, right = cable

    def promiscuity():
        (link,) = json.loads(right.run(["ip", "-d", "-j", "link", "show", "vb"]))
        return link["promiscuity"]

    with right.call(LiveInput, "vb"):
        assert promiscuity() == 1
    assert promiscuity() == 0


def test_not_promiscuous(cable):
    """What is addressed to the interface is seen, nothing else is asked of it; a card leaves out what is for others."""
    left, right = cable
    (link,) = json.loads(right.run(["ip", "-d", "-j", "link", "show", "vb"]))
    d = Dialogue().handshake()
    source = right.call(LiveInput, ["vb"], promiscuous=False)
    (during,) = json.loads(right.run(["ip", "-d", "-j", "link", "show", "vb"]))
    assert during["promiscuity"] == link["promiscuity"] == 0
    address = bytes.fromhex(link["address"].replace(":", ""))
    send(left, "va", [address + packet.data[6:] for packet in d.packets])
    flows, _, _ = drain(source)
    assert [row["handshake"] for row in flows] == ["complete"]


def test_promiscuity_ends_with_the_process(cable):
    _, right = cable
    with live(right, "vb") as process:
        process.kill()
        process.wait(_TIMEOUT)
    (link,) = json.loads(right.run(["ip", "-d", "-j", "link", "show", "vb"]))
    assert link["promiscuity"] == 0


@pytest.mark.slow
def test_waiting_in_traffic_costs_little(cable):
    """A packet now and then wakes the run once for each block, and in between it sleeps."""
    left, right = cable
    batch, packets = PacketBatch(), 0
    with right.call(LiveInput, ["vb"]) as source:
        used, sending = time.process_time(), 0.0
        for _ in range(50):
            before = time.process_time()
            send(left, "va", [Dialogue().handshake().packets[0].data])
            sending += time.process_time() - before
            end = time.monotonic() + 0.04
            while time.monotonic() < end:
                assert source.fill(batch)
                packets += len(batch)
        assert packets > 40 and time.process_time() - used - sending < 0.3


def test_block_timeout_is_how_long_a_packet_waits(cable):
    left, right = cable
    frame = Dialogue().handshake().packets[0].data
    waited = {}
    for timeout_ms in (10, 500):
        with right.call(LiveInput, ["vb"], block_timeout_ms=timeout_ms) as source:
            for _ in range(2):  # the second time the kernel's timer has just begun anew
                batch, began = PacketBatch(), time.monotonic()
                send(left, "va", [frame] * 3)
                while len(batch) == 0:
                    assert source.fill(batch)
                waited[timeout_ms] = time.monotonic() - began
    assert waited[10] < 0.25 < waited[500] < 2
    for wrong in (0, -1, 10_001):
        with pytest.raises(ConfigError, match="a block's timeout is between 1 ms and 10 s"):
            right.call(LiveInput, ["vb"], block_timeout_ms=wrong)


def test_options_of_the_ring(cable):
    """They reach the kernel: the ring as it says itself, the filter, the snap length."""
    left, right = cable
    how = ("--ring", 2, "--block", 256, "--block-timeout", "50ms", "--snaplen", 60, "--filter", "2,6 0 0 99,6 0 0 0", "--json")
    d = Dialogue().handshake()
    d.data(d.a, 300)
    with live(right, "vb", *how, "--no-promiscuous", "--timestamps", "software") as process:
        ring = right.run(["ss", "-0", "--packet", "-e", "-n", "-i", "-p"])
        send(left, "va", [packet.data for packet in d.packets])
        time.sleep(0.3)
        code, text, err = end(process)
    summary = json.loads(text)
    assert (code, err) == (0, "") and summary["packets"] == 4 and summary["bytes_read"] < 4 * 61
    assert "ring_rx(blk_size:262144,blk_nr:8," in ring and "tmo:50," in ring
    for option, value in (("--block", "1000"), ("--snaplen", "0"), ("--timestamps", "gps"), ("--block-timeout", "0")):
        code, _ = failing(right, "-m", "synfin", "live", "vb", option, value)
        assert code == 2


def test_loopback_counts_once():
    with Namespace() as namespace:
        namespace.ip("link set lo up")
        source = namespace.call(LiveInput, "lo")
        before = namespace.counters()
        with namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.bind(("127.0.0.1", 80))
            listener.listen()
            for _ in range(5):
                with namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
                    client.connect(("127.0.0.1", 80))
                    server, _ = listener.accept()
                    exchange(client, server)
                    server.close()
        after = namespace.counters()
        flows, _, run = drain(source)
    assert [row["handshake"] for row in flows] == ["complete"] * 5
    assert sum(row["syn_count"] for row in flows) == 5
    assert not any(row["client_retransmitted_segments"] or row["server_retransmitted_segments"] for row in flows)
    assert run.tracker.stats()["packets"] == after["TcpInSegs"] - before["TcpInSegs"]


def test_interface_without_link_layer(tmp_path):
    """A tun interface delivers IP packets."""
    d = Dialogue().handshake()
    d.data(d.a, 100)
    d.close()
    packets = [packet._replace(data=packet.data[14:]) for packet in d.packets]
    with Namespace() as namespace:
        try:
            tun = namespace.call(os.open, "/dev/net/tun", os.O_RDWR)
            fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", b"tun0", 0x1001))  # TUNSETIFF: TUN, NO_PI
        except OSError as error:
            pytest.skip(f"tun interfaces are not allowed here ({error.strerror})")
        namespace.sysctl("ipv6/conf/tun0/disable_ipv6", 1)
        namespace.ip("link set tun0 up")
        source = namespace.call(LiveInput, "tun0")
        for packet in packets:
            os.write(tun, packet.data)
        flows, _, _ = drain(source)
        os.close(tun)
    recorded, _, _ = fast([write_pcap(tmp_path / "x.pcap", packets, link_type=101)])
    assert compared(flows) == compared(recorded)


def test_seconds_end_the_run(cable, tmp_path):
    _, right = cable
    began = time.monotonic()
    with live(right, "vb", "--seconds", "0.5", "-o", tmp_path / "rows") as process:
        out, err = process.communicate(timeout=_TIMEOUT)
    assert (process.returncode, err) == (0, "") and time.monotonic() - began > 0.5
    assert out.startswith("0 packets on vb, 0 B, in ") and "0 packets dropped by the kernel" in out
    assert not list((tmp_path / "rows").rglob("*.parquet"))  # no rows, no files


_WITHOUT_NET_RAW = """
import ctypes, os, sys
assert ctypes.CDLL(None).prctl(24, 13, 0, 0, 0) == 0  # PR_CAPBSET_DROP, CAP_NET_RAW: gone with the next exec
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def failing(namespace, *command):
    """A command that must not start: exit code and the lines of standard error."""
    process = namespace.popen([sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = process.communicate(timeout=_TIMEOUT)
    assert out == ""
    return process.returncode, err.splitlines()


def test_missing_capability(cable, tmp_path):
    live_vb = ["-m", "synfin", "live", "vb", "-o", str(tmp_path / "rows")]
    code, (line,) = failing(cable[1], "-c", _WITHOUT_NET_RAW, *live_vb)
    assert code == 2 and line.startswith("synfin: cannot listen on vb: CAP_NET_RAW is missing")
    for way in ("sudo", f"setcap cap_net_raw+ep {os.path.realpath(sys.executable)}", "AmbientCapabilities=CAP_NET_RAW"):
        assert way in line
    assert not (tmp_path / "rows").exists()


def test_unknown_interface(cable):
    for name in ("eth7", "a-name-far-too-long-for-an-interface", ""):
        code, (line,) = failing(cable[1], "-m", "synfin", "live", name)
        assert (code, line.partition("; ")[0]) == (2, f"synfin: there is no interface {name!r}")
        assert line.rpartition("there are ")[2].split(", ")[-1] == "vb"


def test_interface_is_down(cable):
    cable[1].ip("link set vb down")
    assert failing(cable[1], "-m", "synfin", "live", "vb") == (
        2, ["synfin: cannot listen on vb: it is down; ip link set vb up"],
    )  # fmt: skip


def test_refusals_of_the_system(cable, monkeypatch):
    """Each becomes one line that names the interface."""
    with pytest.raises(ConfigError, match=r"a ring's block is a power of two of pages \(\d+ bytes\), not 6 bytes"):
        cable[1].call(LiveInput, "vb", block_bytes=6)
    monkeypatch.setattr(packet_socket, "_FRAME_BYTES", 24)  # frames are multiples of 16 bytes
    with pytest.raises(CaptureOpenError, match=r"cannot listen on vb: no ring of 8,192 bytes in blocks of 4,096 \(Invalid argument\)"):
        cable[1].call(LiveInput, "vb", ring_bytes=8192, block_bytes=4096)
    monkeypatch.undo()
    wireless = Link(2, "vb", 803, True, True, 0, 0, 0)  # ARPHRD_IEEE80211_RADIOTAP
    monkeypatch.setattr(Links, "named", lambda *_: wireless)
    with pytest.raises(CaptureOpenError, match=r"cannot listen on vb: its link layer \(ARPHRD 803\) is not decoded"):
        cable[1].call(LiveInput, "vb")
    monkeypatch.undo()
    real = socket.socket

    def refuse(refused):
        def make(family, *rest):
            if family == refused:
                raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
            return real(family, *rest)

        monkeypatch.setattr("socket.socket", make)

    refuse(socket.AF_NETLINK)
    with pytest.raises(CaptureOpenError, match="cannot listen on vb: no rtnetlink here"):
        cable[1].call(LiveInput, "vb")
    refuse(socket.AF_PACKET)
    with pytest.raises(CaptureOpenError, match="cannot listen on vb: no packet sockets here"):
        cable[1].call(LiveInput, "vb")
    monkeypatch.delattr("socket.AF_PACKET")
    with pytest.raises(CaptureOpenError, match="cannot listen on vb: live capture needs Linux"):
        cable[1].call(LiveInput, "vb")
