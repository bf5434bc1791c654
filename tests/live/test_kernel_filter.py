"""Filters and snap lengths that the kernel applies before a packet enters the ring."""

from __future__ import annotations

import shutil
import struct
import subprocess
import threading

import pytest
from taps import drain, received, send

import libpcap
from dialogue import ethernet, ipv4, tcp
from synfin._core.batch import PacketBatch
from synfin.errors import ConfigError
from synfin.sources import bpf
from synfin.sources import filter as filters
from synfin.sources.bpf import KernelFilter, parse_bytecode
from synfin.sources.live import LiveInput

needs_tcpdump = pytest.mark.skipif(shutil.which("tcpdump") is None, reason="needs tcpdump")


def segment(port, vlans=(), payload=b""):
    data = tcp("10.0.0.1", "10.0.0.2", port, 80, seq=1, ack=0, flags=2, payload=payload)
    return ethernet(ipv4("10.0.0.1", "10.0.0.2", data), vlans=vlans)


ARP = bytes(12) + b"\x08\x06" + bytes(46)
#: One frame for each kind that expressions below tell apart, by its source port; the VLANs outermost first.
FRAMES = {"plain": segment(1), "five": segment(2, (5,)), "seven": segment(3, (7,)), "both": segment(4, (7, 5)), "arp": ARP}
TAKEN = {
    "tcp port 1": {"plain"},
    "arp": {"arp"},
    "vlan 5": {"five"},
    "vlan 7": {"seven", "both"},
    "vlan and tcp": {"five", "seven"},
    "vlan 7 and vlan 5": {"both"},
    "not vlan": {"plain", "arp"},
    "ip and not tcp": set(),
}


def source_of(namespace, **how):
    return namespace.call(LiveInput, ["vb"], **how)


def got(source):
    """All packets that the ring holds, as (bytes, length on the wire)."""
    source.stop()
    batch, packets = PacketBatch(), []
    with source:
        while source.fill(batch):
            packets += [(packet[0], packet[7]) for packet in batch.packets()]
    return packets


def kinds(packets):
    """Which of FRAMES were taken: the kernel took the outer tag off."""
    bare = {frame[:12] + frame[16:] if frame[12:14] in (b"\x81\x00", b"\x88\xa8") else frame: kind for kind, frame in FRAMES.items()}
    assert len(bare) == len(FRAMES)
    return {bare[data] for data, _ in packets}


@pytest.mark.parametrize(("expression", "taken"), TAKEN.items())
@pytest.mark.parametrize("compiler", [pytest.param("libpcap", marks=libpcap.needs_libpcap), pytest.param("tcpdump", marks=needs_tcpdump)])
@pytest.mark.kernel
def test_expressions_take_what_they_say(cable, monkeypatch, compiler, expression, taken):
    """Tags too, which the kernel has taken off before it asks the filter."""
    left, right = cable
    if compiler == "tcpdump":
        without_libpcap(monkeypatch)
    source = source_of(right, filter=expression)
    send(left, "va", FRAMES.values())
    assert kinds(got(source)) == taken


def without_libpcap(monkeypatch):
    def missing():
        raise filters.LibpcapMissing("not here")

    monkeypatch.setattr(filters, "_libpcap", missing)


@libpcap.needs_libpcap
@needs_tcpdump
@pytest.mark.kernel
def test_tcpdump_shows_the_same_packets(cable, tmp_path):
    """Beside tcpdump with the same filter on the same interface."""
    left, right = cable
    path = tmp_path / "x.pcap"
    command = ["tcpdump", "-i", "vb", "-U", "-w", str(path), "--immediate-mode", "-c", "2", "vlan 7"]
    with right.popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert "listening on vb" in process.stderr.readline()
        source = source_of(right, filter="vlan 7")
        send(left, "va", FRAMES.values())
        process.wait(20)
    text = path.read_bytes()
    assert all(FRAMES[kind] in text for kind in TAKEN["vlan 7"]) and FRAMES["plain"] not in text
    assert kinds(got(source)) == TAKEN["vlan 7"]


@libpcap.needs_libpcap
@pytest.mark.kernel
def test_what_the_filter_rejects_is_counted_nowhere(cable):
    left, right = cable
    source = source_of(right, filter="tcp port 1")
    send(left, "va", FRAMES.values())
    _, _, run = drain(source)
    assert received(run) == run.tracker.stats()["packets"] == 1
    assert not run.tracker.stats()["skips"]


TCP_80 = "11,40 0 0 12,21 0 8 2048,48 0 0 23,21 0 6 6,40 0 0 20,69 4 0 8191,177 0 0 14,72 0 0 16,21 0 1 80,6 0 0 262144,6 0 0 0"


@pytest.mark.kernel
def test_bytecode_needs_no_compiler(cable, monkeypatch):
    """A program for IPv4, first fragment, TCP to port 80, as text and as bytes; it ends with a rejection."""
    left, right = cable
    without_libpcap(monkeypatch)
    monkeypatch.setenv("PATH", "")
    code = parse_bytecode(TCP_80)
    assert parse_bytecode(TCP_80.replace(",", "\n")) == code == parse_bytecode(TCP_80 + ",\n")
    other = segment(9)[:36] + struct.pack("!H", 81) + segment(9)[38:]
    for program in (TCP_80, code):
        source = source_of(right, filter=program)
        send(left, "va", [FRAMES["plain"], other, ARP])
        assert kinds(got(source)) == {"plain"}


@pytest.mark.kernel
def test_no_packet_passes_before_the_filter(cable):
    """While frames pour in, socket after socket is opened with a filter that takes none of them."""
    left, right = cable
    stop = threading.Event()

    def pour():
        while not stop.is_set():
            send(left, "va", [ARP] * 50)

    thread = threading.Thread(target=pour)
    thread.start()
    try:
        for _ in range(30):
            source = source_of(right, ring_bytes=1 << 20, block_bytes=1 << 16, filter="1,6 0 0 0")
            packets = got(source)
            assert packets == [] and source.losses()["vb"].ring_packets == 0
    finally:
        stop.set()
        thread.join()


@pytest.mark.kernel
@pytest.mark.parametrize("filter", [None, pytest.param("tcp", marks=libpcap.needs_libpcap)])
def test_snap_length(cable, filter):
    """So many bytes enter the ring; the length on the wire is told all the same, and counts."""
    left, right = cable
    frame = segment(1, payload=b"x" * 1000)
    for snaplen, kept in ((60, 60), (None, len(frame)), (4096, len(frame))):
        source = source_of(right, filter=filter, snaplen=snaplen)
        send(left, "va", [frame])
        assert got(source) == [(frame[:kept], len(frame))]
    source = right.call(LiveInput, ["vb"], filter=filter)
    send(left, "va", [frame])
    flows, _, _ = drain(source)
    assert flows[0]["client_payload_bytes"] == 1000 and source.bytes_read == 512


@pytest.mark.kernel
@pytest.mark.usefixtures("namespaces")
def test_loopback_with_a_filter():
    from netns import Namespace

    with Namespace() as namespace:
        namespace.ip("link set lo up")
        source = namespace.call(LiveInput, ["lo"], filter="1,6 0 0 99999")
        send(namespace, "lo", [segment(port) for port in range(1, 11)])
        _, _, run = drain(source)
    assert run.tracker.stats()["packets"] == received(run) == 10


@libpcap.needs_libpcap
@pytest.mark.kernel
def test_tun_interface_is_filtered_by_its_ip(cable):
    """The frames of such an interface begin with IP, and so does what the program sees."""
    _, right = cable
    try:
        right.run(["ip", "tuntap", "add", "tun0", "mode", "tun"])
    except RuntimeError as error:
        pytest.skip(f"tun interfaces are not allowed here ({error})")
    code = KernelFilter("tcp", None)._compile("tun0", 101)
    assert code == filters.Filter("tcp")(101)


@libpcap.needs_libpcap
@pytest.mark.kernel
@pytest.mark.parametrize("expression", ["tcp port", "tcp\0"])
def test_bad_expressions(cable, expression):
    with pytest.raises(ConfigError, match=r"^(filter 'tcp port'|the filter expression holds a NUL)"):
        source_of(cable[1], filter=expression)


@needs_tcpdump
@pytest.mark.kernel
def test_bad_expression_to_tcpdump(cable, monkeypatch):
    without_libpcap(monkeypatch)
    with pytest.raises(ConfigError, match=r"^filter 'tcp port': .*syntax error"):
        source_of(cable[1], filter="tcp port")


def test_neither_libpcap_nor_tcpdump(monkeypatch):
    without_libpcap(monkeypatch)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="needs libpcap or tcpdump, and neither is installed; bytecode"):
        KernelFilter("tcp", None).program("eth0", 1, outgoing=True)


BAD = {
    "1,6 0 0": "an instruction is four numbers",
    "1,6 0 0 x": "an instruction is four numbers",
    "1,6 0 0 4294967296": "an instruction is four numbers",
    "1,6 256 0 0": "an instruction is four numbers",
    "2,6 0 0 0": "it announces 2 instructions and holds 1",
    "0": "sequence of 8-byte instructions, not 0 bytes",
    b"1234567": "sequence of 8-byte instructions, not 7 bytes",
    b"": "sequence of 8-byte instructions, not 0 bytes",
    struct.pack("HBBI", 6, 0, 0, 0) * 4094: "too long for the kernel: 4,094 instructions, 4,093 at most",
}


@pytest.mark.parametrize(("program", "complaint"), BAD.items(), ids=map(str, range(len(BAD))))
def test_bad_programs(program, complaint):
    with pytest.raises(ConfigError, match=complaint):
        KernelFilter(program, None).program("eth0", 1, outgoing=False)


@pytest.mark.kernel
def test_kernel_refuses_a_program(cable):
    with pytest.raises(ConfigError, match=r"the kernel refuses the filter \(Invalid argument\)"):
        source_of(cable[1], filter="1,0 0 0 0")


def test_snap_length_bounds_what_a_program_returns():
    program = KernelFilter("3,6 0 0 262144,6 0 0 40,6 0 0 0", 96).program("eth0", 1, outgoing=True)
    assert [k for *_, k in struct.iter_unpack("HBBI", program)] == [96, 40, 0]
    with pytest.raises(ConfigError, match="computes how much of a packet to keep"):
        KernelFilter("2,128 0 0 0,22 0 0 0", 96).program("eth0", 1, outgoing=True)
    for snaplen in (0, -1, 262_145):
        with pytest.raises(ConfigError, match="the snap length must be between 1 and 262,144"):
            KernelFilter(None, snaplen)


def test_expressions_that_begin_with_a_number_are_no_bytecode():
    assert not bpf._BYTECODE.match("10.0.0.1") and not bpf._BYTECODE.match("6 = ip[9]")
    assert bpf._BYTECODE.match("1,6 0 0 0") and bpf._BYTECODE.match(" 1\n6 0 0 0\n")
