"""Buckets and quantiles of the interval table (SPEC 5), with Python integers and sorted lists."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from synfin._core.probe import rtt_buckets, rtt_quantiles

LONGEST = 2**63 - 1


def edges(value: int) -> tuple[int, int]:
    """Lower edge and width of a duration's bucket: 1 ns below 128 ns, then 64 equal parts of each power of two."""
    if value < 128:
        return value, 1
    power = 1 << (value.bit_length() - 1)
    width = power // 64
    return power + (value - power) // width * width, width


def middle(value: int) -> int:
    """Lower edge and half the width, rounded down."""
    low, width = edges(value)
    return low + width // 2


DURATIONS = st.one_of(
    st.integers(0, 300),
    st.integers(0, LONGEST),
    st.builds(lambda bits, off: min(max((1 << bits) + off, 0), LONGEST), st.integers(0, 62), st.integers(-2, 2)),
    st.builds(
        lambda value, off: min(max(edges(value)[0] + off, 0), LONGEST), st.integers(0, LONGEST), st.integers(-1, 0)
    ),
)


@given(DURATIONS)
@example(127)
@example(128)
@example(129)
@example(255)
@example(256)
@example(LONGEST)
def test_the_bucket_s_middle(value):
    assert rtt_buckets([value])[0][1] == middle(value)


@given(DURATIONS, DURATIONS)
def test_two_durations_share_a_bucket_exactly_if_their_edges_are_equal(a, b):
    (one, _), (other, _) = rtt_buckets([a, b])
    assert (one == other) == (edges(a) == edges(b))
    assert (one < other) == (edges(a) < edges(b))


def test_every_bucket_is_used_in_order():
    lows, value = [], 0
    while value <= LONGEST:
        lows.append(value)
        value += edges(value)[1]
    assert [bucket for bucket, _ in rtt_buckets(lows)] == list(range(128 + 56 * 64))


@given(st.lists(DURATIONS, min_size=1, max_size=300))
@example([5])
@example([1] * 9 + [1000])
@example([1] * 10 + [1000])
def test_quantiles_are_the_nearest_rank_value_s_middle_and_the_maximum_is_exact(values):
    ordered, percents = sorted(values), [1, 50, 90, 99, 100]
    ranks = [-(-percent * len(values) // 100) for percent in percents]
    assert rtt_quantiles(values, percents) == [middle(ordered[rank - 1]) for rank in ranks] + [ordered[-1]]
