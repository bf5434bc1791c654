"""More than a sidecar can take: every packet that was sent is tracked, skipped or counted as dropped, and a second later all is well.

What was sent is told by the sender, and by the counters of both ends of the cable.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from processes import TIMEOUT, end, sidecar, stored
from taps import send

from dialogue import Captured, Dialogue, ethernet, write_pcap

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespaces")]

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
ARP = ethernet(bytes(28), ethertype=0x0806)
CONNECTIONS, PASSES = 1500, 40
#: Frames of a whole flood: connections of seven segments each, and an ARP frame beside every one of them.
FLOOD = CONNECTIONS * 8 * PASSES


@pytest.fixture(scope="module")
def flood(tmp_path_factory):
    """A function that sends a flood from a namespace as fast as it goes, and gives what the sender says of it."""
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    build = tmp_path_factory.mktemp("flood")
    subprocess.run(["make", "-C", BENCHMARKS, f"BUILD={build}", build / "send"], check=True, capture_output=True)
    packets = []
    for which in range(CONNECTIONS):
        d = Dialogue(a_ip=f"10.1.{which >> 8}.{which & 255}", b_ip="10.2.0.1").handshake().close()
        packets += [*d.packets, Captured(d.now, ARP)]
    write_pcap(build / "flood.pcap", packets)

    def send_from(namespace, passes=PASSES):
        line = [build / "send", "--passes", str(passes), build / "flood.pcap", "va"]
        out, _ = namespace.popen(line, stdout=subprocess.PIPE, text=True).communicate(timeout=TIMEOUT)
        return json.loads(out)

    return send_from


def frames_of(namespace, interface):
    """Frames that an interface has sent, received, and failed to send."""
    (link,) = json.loads(namespace.run(["ip", "-s", "-j", "link", "show", interface]))
    stats = link["stats64"]
    return stats["tx"]["packets"], stats["rx"]["packets"], stats["tx"]["dropped"]


@contextlib.contextmanager
def stopped(process):
    """It gets no processor time."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def outrun(process):
    """It has one processor, and there the sender goes first."""
    before = os.sched_getaffinity(0)
    threads = [int(name) for name in os.listdir(f"/proc/{process.pid}/task")]
    for thread in threads:
        os.sched_setaffinity(thread, {min(before)})
        os.setpriority(os.PRIO_PROCESS, thread, 19)
    # A new process gets the affinity of the thread that starts it, and that one gets it from here.
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
        for thread in threads:
            os.sched_setaffinity(thread, before)
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, 0))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("slowed", [stopped, outrun])
def test_every_packet_is_told(cable, tmp_path, flood, slowed, workers):
    left, right = cable
    out = tmp_path / "rows"
    how = ("--ring", 2, "--block", 256, "--workers", workers, "--max-flows", 4000, "--json", "-o", out)
    before = frames_of(left, "va")[0], frames_of(right, "vb")[1]
    with sidecar(right, tmp_path, "vb", *how) as (process, _):
        with slowed(process):
            said = flood(left)
        time.sleep(1)
        probe = Dialogue(a_ip="192.0.2.1", b_ip="192.0.2.2").handshake()
        probe.data(probe.a, 100)
        probe.ack(probe.b)
        send(left, "va", [packet.data for packet in probe.close().packets])
        code, text, _ = end(process)
    summary = json.loads(text)
    sent = said["sent"] + len(probe.packets)
    lost = summary["input"]["losses"]["vb"]
    # The way to the ring.
    assert said["sent"] + said["refused"] == FLOOD
    assert frames_of(left, "va")[0] - before[0] == frames_of(right, "vb")[1] - before[1] == sent
    assert lost["ring_packets"] == sent
    # From there: dropped, skipped or tracked.
    assert code == 0 and summary["accounting"]["holds"]
    assert lost["ring_drops"] == summary["capture_drops"] > 0 and lost["ring_freezes"] > 0
    assert summary["packets"] + lost["ring_drops"] == sent
    skipped = summary["accounting"]["not_ip"]
    flows, intervals = stored(out, "flows"), stored(out, "intervals")
    tracked = sum(row["client_packets"] + row["server_packets"] for row in flows)
    assert tracked + skipped + lost["ring_drops"] == sent and skipped > 0
    assert sum(row["packets"] for row in intervals) == tracked
    assert sum(row["capture_drops"] for row in intervals) == lost["ring_drops"]
    # A second later.
    (row,) = (row for row in flows if row["client_ip"] == "192.0.2.1")
    assert row["client_packets"] + row["server_packets"] == len(probe.packets) == 9
    assert (row["handshake"], row["close"], row["client_missing_bytes"]) == ("complete", "fin_4way", 0)


@pytest.mark.slow
def test_a_full_table_is_written_at_the_end(cable, tmp_path, flood):
    """More records at once than wait for the disk while packets come: at the end no row is dropped for that."""
    left, right = cable
    passes = 150
    how = (
        "--checksum",
        "verify",
        "--json",
        "-o",
        tmp_path / "rows",
    )  # the sender's other addresses leave checksums right
    with sidecar(right, tmp_path, "vb", *how) as (process, _):
        said = flood(left, passes)
        code, text, err = end(process)
    summary = json.loads(text)
    assert summary["capture_drops"] == said["refused"] == 0 and "bad_checksum" not in summary["accounting"]
    assert (code, err) == (0, "")
    flows = stored(tmp_path / "rows", "flows")
    assert len(flows) == passes * CONNECTIONS > 200_000
    assert {row["close"] for row in flows} == {"fin_4way"}
