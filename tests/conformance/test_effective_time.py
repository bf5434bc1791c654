"""Effective time and the step back of the clock (SPEC 2), seen in records and interval rows."""

from __future__ import annotations

import pytest

from dialogue import SECOND, START, Captured, Dialogue, ethernet, ipv4

HOUR = 3600 * SECOND


def talk(port: int, *times: int) -> list[Captured]:
    """One packet of a connection of its own at each instant."""
    d = Dialogue(a_port=port)
    for time in times:
        d.ack(d.a, time=time)
    return d.packets


def noise(time: int) -> Captured:
    """A packet that is skipped (UDP); it moves the clock all the same."""
    return Captured(time, ethernet(ipv4("10.9.9.9", "10.9.9.8", b"\0" * 8, protocol=17)))


def packets_by_second(tap, packets) -> dict[int, int]:
    """Packets of tracked connections in each interval, by its second since START."""
    tap.rows(packets)
    return {(row["interval_start"] - START) // SECOND: row["packets"] for row in tap.intervals if row["packets"]}


@pytest.mark.parametrize(("clock", "second"), [(2 * SECOND - 1, 0), (2 * SECOND, 1)])
def test_a_late_packet_counts_no_earlier_than_the_clock_less_a_second(tap, clock, second):
    packets = [noise(START + clock), *talk(40000, START + SECOND // 2)]
    assert packets_by_second(tap, packets) == {second: 1}


def test_within_the_second_it_counts_at_its_own_timestamp(tap):
    packets = [noise(START + SECOND + SECOND // 2), *talk(40000, START + SECOND - 1)]
    assert packets_by_second(tap, packets) == {0: 1}


@pytest.mark.parametrize(("port", "counts"), [(40000, {1: 2}), (40001, {0: 1, 1: 1})])
def test_it_counts_no_earlier_than_its_records_last_packet_but_others_may(tap, port, counts):
    packets = [*talk(40000, START + SECOND), *talk(port, START + SECOND - 1)]
    assert packets_by_second(tap, packets) == counts


def test_skipped_packets_move_the_clock(tap):
    d = Dialogue()
    d.syn(d.a)
    late = talk(40000, d.now + 1)
    assert len(tap.rows([*d.packets, noise(d.now + 76 * SECOND - 1), *late])) == 1
    assert len(tap.rows([*d.packets, noise(d.now + 76 * SECOND), *late])) == 2


def test_the_first_of_two_that_jump_ahead_counts_at_the_clock_that_they_agree_on(tap):
    """A packet two hours ahead, the next one a little less: the clock moves to the smaller, and no count is ahead of it."""
    ahead = START + 2 * HOUR
    packets = [
        *talk(40000, START),
        *talk(40001, ahead + 10 * SECOND),
        *talk(40002, ahead),
        *talk(40002, ahead + SECOND),
    ]
    assert packets_by_second(tap, packets) == {0: 1, 2 * 3600: 2, 2 * 3600 + 1: 1}


def test_instants_and_durations_are_the_packets_own(tap):
    """b's clock is behind: the duration of the record spans all timestamps, a negative round trip is null."""
    d = Dialogue()
    d.syn(d.a)
    d.synack(d.b, time=d.now - SECOND // 2)
    d.ack(d.a)
    row = tap.row(d)
    assert (row["first_seen"], row["last_seen"]) == (d.packets[1].time_ns, d.packets[2].time_ns)
    assert row["duration_ns"] == d.packets[2].time_ns - d.packets[1].time_ns
    assert (row["rtt_server_ns"], row["rtt_server_quality"], row["synack_first"]) == (
        None,
        "none",
        d.packets[1].time_ns,
    )


# ------------------------------------------------------------------------------------------ step back


def behind(count: int, since: int) -> list[Captured]:
    """``count`` packets of another connection, a microsecond apart, the last one at ``since``."""
    return talk(50000, *(since - (count - 1 - i) * 1000 for i in range(count)))


def records_of_a(tap, *parts) -> int:
    """How many records the connection of port 40000 came to."""
    return sum(row["client_port"] == 40000 for row in tap.rows([packet for part in parts for packet in part]))


BACK = START - 2 * HOUR
TIMEOUT = 124 * 60 * SECOND


def established(last: int) -> list[Captured]:
    d = Dialogue(start=last, step=0)
    return d.handshake().packets


@pytest.mark.parametrize(("count", "steps"), [(999, 0), (1000, 1)])
def test_after_1000_packets_in_a_row_the_clock_steps_back_to_the_last(tap, count, steps):
    """Afterwards every deadline has moved by the same amount: from START + 2:04 h to BACK + 2:04 h."""
    at = BACK + TIMEOUT
    assert records_of_a(tap, established(START), behind(count, BACK), talk(40000, at - 1)) == 1
    assert tap.stats["clock_steps"] == steps
    assert records_of_a(tap, established(START), behind(count, BACK), talk(40000, at)) == 1 + steps


def test_exactly_an_hour_behind_is_not_behind(tap):
    tap.rows([*established(START), *talk(50000, *[START - HOUR] * 1000)])
    assert tap.stats["clock_steps"] == 0
    tap.rows([*established(START), *talk(50000, *[START - HOUR - 1] * 1000)])
    assert tap.stats["clock_steps"] == 1


def test_one_packet_in_between_begins_the_count_anew(tap):
    packets = [*established(START), *behind(999, BACK), *talk(50001, START - 1), *behind(999, BACK)]
    tap.rows(packets)
    assert tap.stats["clock_steps"] == 0
    tap.rows([*packets, *behind(1, BACK)])
    assert tap.stats["clock_steps"] == 1


def test_the_packet_that_steps_is_still_judged_by_the_old_clock(tap):
    """It counts at the old clock less a second, in the interval that the step cuts."""
    tap.rows([*established(START), *behind(1000, BACK), *talk(50000, BACK + 1)])
    cut, after = (
        [row for row in tap.intervals if row["interval_start"] // SECOND == time // SECOND] for time in (START, BACK)
    )
    assert [row["packets"] for row in after] == [1]
    assert sum(row["packets"] for row in tap.intervals) == 3 + 1000 + 1
    assert [row["complete"] for row in cut] == [False]


def test_last_effective_times_move_too(tap):
    """After the step, a packet of the record counts at the stepped clock, not at the record's old effective time."""
    tap.rows([*established(START), *behind(1000, BACK), *talk(40000, BACK + SECOND), *talk(50000, BACK + 3 * SECOND)])
    seconds = {(row["interval_start"] - BACK) // SECOND: row["packets"] for row in tap.intervals}
    assert (seconds[1], seconds[3]) == (1, 1)


def test_no_record_expires_because_of_the_step(tap):
    d = Dialogue(start=START, step=0)
    d.syn(d.a)
    begin = [noise(START), noise(START), *d.packets]  # so that no first packet is an outlier
    assert records_of_a(tap, begin, behind(1000, BACK), talk(40000, BACK + 75 * SECOND - 1)) == 1
    assert records_of_a(tap, begin, behind(1000, BACK), talk(40000, BACK + 75 * SECOND)) == 2
