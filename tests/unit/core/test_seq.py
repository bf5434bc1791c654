"""Sequence arithmetic against Python integers (RFC 9293 section 3.4)."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from synfin._core.probe import sequence

U32 = st.integers(0, 2**32 - 1)


@given(U32, st.integers(-(2**31) + 1, 2**31 - 1))
@example(2**32 - 1, 1)
@example(0, -1)
@example(2**31 - 1, 1)
@example(0, 2**31 - 1)
def test_as_python_integers_while_less_than_half_the_space_apart(a, distance):
    b = (a + distance) % 2**32
    assert sequence(a, b) == (distance, distance > 0, distance >= 0, distance < 0, distance <= 0)


@pytest.mark.parametrize("a", [0, 1, 2**31 - 1, 2**31, 2**32 - 1])
def test_equal(a):
    assert sequence(a, a) == (0, False, True, False, True)
