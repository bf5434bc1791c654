"""What must not show in the rows: which end has the smaller address, repeats, chunk sizes, batch and file borders."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dialogue import SECOND, START, Captured, Dialogue, ethernet, ipv4, options, write_pcap
from rows import fast

#: One step of a conversation: who, what, payload, whether the tap sees it, and the time that passes before.
STEPS = st.lists(
    st.tuples(
        st.sampled_from("ab"),
        st.sampled_from(["syn", "synack", "ack", "data", "data", "fin", "resend", "keep_alive", "rst", "old", "wild"]),
        st.integers(0, 300),
        st.sampled_from([True, True, True, True, False]),
        st.sampled_from([0, 1000, 10**7, SECOND, 20 * SECOND, 70 * SECOND]),
    ),
    max_size=25,
)
ISNS = st.tuples(*[st.sampled_from([1000, 2**31 - 200, 2**32 - 200, 2**32 - 1])] * 2)
FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def converse(d: Dialogue, steps) -> Dialogue:
    """Plays steps; numbers are right except those of a wild segment."""
    d.a.options, d.b.options = options(mss=1460, scale=2), options(mss=1400, scale=3, ts=(7, 9))
    last = {}
    for who, what, size, captured, step in steps:
        end, how = getattr(d, who), {"captured": captured, "step": step}
        if what == "resend":
            if who in last:
                d.now += step
                d.packets.append(last[who]._replace(time_ns=d.now))
            continue
        if what == "old":
            d.syn(end, seq=end.isn - 10_000, **how)
        elif what == "wild":
            d.send(end, "PA", size, seq=end.nxt + 200 * size, ack=d.peer(end).nxt - size, **how)
        elif what in ("data", "keep_alive"):
            getattr(d, what)(end, size if what == "data" else size % 2, **how)
        else:
            getattr(d, what)(end, **how)
        if captured:
            last[who] = d.packets[-1]
    return d


def without(row: dict[str, Any], *names: str) -> dict[str, Any]:
    """A row without some columns."""
    return {name: value for name, value in row.items() if name not in names}


def noise(count: int, time: int = START) -> list[Captured]:
    """Packets that are skipped."""
    return [Captured(time, ethernet(ipv4("10.9.9.9", "10.9.9.8", b"\0" * 8, protocol=17)))] * count


def conversation() -> Dialogue:
    """One with a little of everything: loss, resends, a reset, reuse, both families of outcomes."""
    d = Dialogue(a_isn=2**32 - 300, b_isn=2**32 - 100)
    d.a.options = d.b.options = options(mss=1460, scale=7, ts=(1, 0), sack=True)
    d.syn(d.a)
    d.syn(d.a, step=SECOND)
    d.synack(d.b)
    d.ack(d.a)
    for size in (100, 200, 300):
        d.data(d.a, size)
        d.data(d.b, 2 * size, captured=size != 200)
    d.ack(d.a)
    d.keep_alive(d.a)
    d.close()
    d.wait(5 * SECOND)
    d.reborn(a_isn=90_000, b_isn=2**31)
    d.handshake()
    d.data(d.b, 50)
    d.rst(d.a)
    return d


@given(STEPS, ISNS)
@FEW
def test_exchanging_the_two_addresses_mirrors_the_rows(tap, steps, isns):
    rows = []
    for ips in ({"a_ip": "10.0.0.1", "b_ip": "10.0.0.2"}, {"a_ip": "10.0.0.2", "b_ip": "10.0.0.1"}):
        d = converse(Dialogue(a_isn=isns[0], b_isn=isns[1], **ips), steps)
        rows.append([without(row, "flow_id", "client_ip", "server_ip") for row in tap.rows(d)])
        rows.append(tap.intervals)
    assert rows[:2] == rows[2:]


@given(STEPS, ISNS)
@FEW
def test_the_ip_version_shows_in_nothing_but_itself(tap, steps, isns):
    rows = []
    for ips in ({"a_ip": "10.0.0.1", "b_ip": "10.0.0.2"}, {"a_ip": "2001:db8::1", "b_ip": "2001:db8::2"}):
        d = converse(Dialogue(a_isn=isns[0], b_isn=isns[1], **ips), steps)
        names = ("flow_id", "ip_version", "ip_bytes", "client_ip", "server_ip", "client_ip_bytes", "server_ip_bytes",
                 "client_dont_fragment", "server_dont_fragment")  # fmt: skip
        rows.append([without(row, *names) for row in tap.rows(d)])
    assert rows[0] == rows[1]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["data", "ack", "fin", "rst", "synack", "syn"]),
                          st.booleans()), max_size=12), ISNS, st.booleans())  # fmt: skip
@FEW
def test_repeating_any_segment_never_moves_a_state_twice(tap, steps, isns, handshake):
    """Every segment twice: the states after each pair are those after the single one.

    Where the tap came later, without SYNs and SYN-ACKs: the first one says how the record began, its copy is a resend.
    """
    if not handshake:
        steps = [step for step in steps if not step[1].startswith("syn")]
    once, twice = (Dialogue(a_isn=isns[0], b_isn=isns[1]) for _ in range(2))
    for d in (once, twice):
        d.handshake()
        if not handshake:  # the tap comes later
            d.packets.clear()
        for who, what, captured in steps:
            getattr(d, what)(getattr(d, who), **({"captured": captured} if what != "rst" else {}))
    twice.packets = [packet for packet in once.packets for _ in range(2)]
    assert tap.steps(twice, every=2) == tap.steps(once)
    assert len(tap.rows(twice)) == len(tap.rows(once))


@pytest.mark.parametrize("chunk_bytes", [1, 2, 3, 7, 15, 16, 17, 39, 64, 100, 1000])
def test_chunk_sizes_change_nothing(tap, chunk_bytes):
    d = conversation()
    whole, intervals = tap.rows(d), tap.intervals
    assert len(whole) == 2
    assert tap.rows(d, chunk_bytes=chunk_bytes) == whole
    assert tap.intervals == intervals


@pytest.mark.parametrize("before", [*range(256 - 23, 257), 511, 512])
def test_batch_borders_change_nothing(tap, before):
    """Batches hold 256 packets: the border falls before, between and after the packets of the conversation."""
    d = conversation()
    whole, intervals = tap.rows(d), tap.intervals
    moved = tap.rows([*noise(before, d.packets[0].time_ns), *d.packets])
    assert [without(row, "first_packet") for row in moved] == [without(row, "first_packet") for row in whole]
    assert [row["first_packet"] - before for row in moved] == [row["first_packet"] for row in whole]
    assert tap.intervals == intervals


@pytest.mark.parametrize("files", [2, 3, 5, 22])
def test_file_splits_change_nothing(tmp_path, tap, files):
    d = conversation()
    whole, intervals = tap.rows(d), tap.intervals
    cuts = [i * len(d.packets) // files for i in range(files + 1)]
    paths = [
        write_pcap(tmp_path / f"part{i:02}.pcap", d.packets[low:high]) for i, (low, high) in enumerate(pairwise(cuts))
    ]
    flows, split_intervals, _ = fast(paths)
    names = ("first_file", "first_packet")
    assert [without(row, *names) for row in sorted(flows, key=lambda row: row["first_seen"])] == [
        without(row, *names) for row in whole
    ]
    assert split_intervals == intervals
    for row, single in zip(sorted(flows, key=lambda row: row["first_seen"]), whole, strict=True):
        part = next(i for i in range(files) if cuts[i] < single["first_packet"] <= cuts[i + 1])
        assert (row["first_file"], row["first_packet"]) == (str(paths[part]), single["first_packet"] - cuts[part])
