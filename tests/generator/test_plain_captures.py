"""Captures of the generator without a truth: random SYNs, and the same capture with microseconds."""

import shutil
import subprocess
from pathlib import Path

import pytest
from dpkt import ethernet, pcap, tcp

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    """Makes a capture by its options; the packets as (nanoseconds, frame), and the file's first bytes."""
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    folder = tmp_path_factory.mktemp("benchmarks")
    traffic = folder / "traffic"
    subprocess.run(["make", "-C", ROOT / "benchmarks", f"BUILD={folder}", traffic], check=True, capture_output=True)

    def made(options):
        subprocess.run([traffic, "-o", folder / "out.pcap", *options.split()], check=True, capture_output=True)
        with (folder / "out.pcap").open("rb") as file:
            reader = pcap.Reader(file)
            packets = [(round(float(stamp) * 1e6), frame) for stamp, frame in reader]
        return packets, (folder / "out.pcap").read_bytes()[:4]

    return made


def test_nine_of_ten_packets_are_syns_from_addresses_of_nobody_else(capture):
    packets, _ = capture("--packets 30000 --connections-open 100 --mix longlived --random-syns 0.9 --ipv6-share 0.5")
    sources, syns = set(), 0
    for _, frame in packets:
        ip = ethernet.Ethernet(frame).data
        if (len(ip.src) == 4 and ip.src[0] != 10) or (len(ip.src) == 16 and any(ip.src[8:14])):
            assert ip.data.flags == tcp.TH_SYN and ip.data.ack == 0
            syns += 1
            sources.add((ip.src, ip.data.sport))
    assert len(packets) == 30_000
    assert abs(syns - 0.9 * 29_700) < 300  # 300 packets open the others
    assert len(sources) == syns


def test_microseconds_are_the_same_packets(capture):
    options = "--packets 5000 --connections-open 50 --mix churn"
    fine, nanoseconds = capture(options)
    coarse, microseconds = capture(f"{options} --microseconds")
    assert (nanoseconds, microseconds) == (b"\x4d\x3c\xb2\xa1", b"\xd4\xc3\xb2\xa1")
    assert [frame for _, frame in fine] == [frame for _, frame in coarse]
    assert all(abs(a - b) <= 1 for (a, _), (b, _) in zip(fine, coarse, strict=True))


@pytest.mark.parametrize("more", ["--truth t.tsv", "--intervals i.tsv", "--mix churn", "--duplicates 0.1"])
def test_random_syns_go_with_nothing_that_needs_their_truth(capture, more):
    with pytest.raises(subprocess.CalledProcessError) as caught:
        capture(f"--mix longlived --random-syns 0.5 {more}")
    assert b"--random-syns" in caught.value.stderr
