"""The index against a dictionary: insertion, lookup by probing, removal that closes the gap, and the probe length."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from synfin._core.probe import Index

SLOTS = 16


def find(slots: list[tuple[int, int]], hash: int, number: int) -> int | None:
    """How many slots a lookup of this entry looks at: from its home on, to the entry; None if an empty one comes first."""
    for probes in range(1, len(slots) + 1):
        slot = slots[(hash + probes - 1) % len(slots)]
        if slot == (hash, number):
            return probes
        if slot[1] == 0:
            return None
    return None


def check(index: Index, model: dict[int, int]) -> None:
    """The index holds exactly the model's entries, each once and each where a lookup finds it."""
    slots = index.slots()
    assert sorted(slot for slot in slots if slot[1]) == sorted((hash, number) for number, hash in model.items())
    assert len(index) == len(model)
    for number, hash in model.items():
        assert find(slots, hash, number) is not None, (slots, hash, number)


#: Hashes that share homes, lie next to each other, wrap round the table's end, or differ above its mask only.
HASHES = st.one_of(
    st.integers(0, 3),
    st.integers(SLOTS - 3, SLOTS - 1),
    st.builds(lambda home, high: home + SLOTS * high, st.integers(0, SLOTS - 1), st.integers(0, 3)),
    st.integers(0, 2**32 - 1),
)


@given(st.lists(st.tuples(st.booleans(), HASHES, st.integers(0, 99)), max_size=80))
@settings(deadline=None, max_examples=400)
def test_against_a_dictionary(steps):
    index, model, fresh = Index(SLOTS), {}, 1
    for insert, hash, choice in steps:
        if insert and len(model) < SLOTS - 1:
            index.insert(hash, fresh)
            model[fresh] = hash
            fresh += 1
        elif not insert and model:
            number = sorted(model)[choice % len(model)]
            index.remove(model.pop(number), number)
        check(index, model)


def test_removal_moves_an_entry_back_over_the_tables_end():
    """Homes 15, 15 and 15 fill the slots 15, 0 and 1; without the first, the others must move to 15 and 0."""
    index = Index(SLOTS)
    for number in (1, 2, 3):
        index.insert(15, number)
    index.remove(15, 1)
    slots = index.slots()
    assert (slots[15], slots[0], slots[1][1]) == ((15, 2), (15, 3), 0)


def test_removal_leaves_an_entry_at_its_home():
    """Slots 3 and 4 hold homes 3 and 3, slot 5 holds home 5: the gap at 3 is closed by the second, and 5 stays."""
    index = Index(SLOTS)
    index.insert(3, 1)
    index.insert(3, 2)
    index.insert(5, 3)
    index.remove(3, 1)
    slots = index.slots()
    assert (slots[3], slots[4][1], slots[5]) == ((3, 2), 0, (5, 3))


def test_an_insertion_beyond_the_longest_probe_is_noted():
    index = Index(4096)
    for number in range(1, Index.longest_probe + 1):
        index.insert(7, number)
        assert not index.crowded()
    index.insert(7, 9999)
    assert index.crowded()
    assert find(index.slots(), 7, 9999) == Index.longest_probe + 1


def test_many_with_good_hashes_stay_within_the_longest_probe():
    """Filled to 3/4, as far as the tracker lets it come, with the hashes of a multiplicative generator."""
    slots, hash, model = 2**14, 1, {}
    index = Index(slots)
    for number in range(1, slots * 3 // 4):
        hash = hash * 1664525 + 1013904223 & 0xFFFFFFFF
        model[number] = hash ^ hash >> 16
        index.insert(model[number], number)
    for number in range(1, slots * 3 // 4, 2):
        index.remove(model.pop(number), number)
    check(index, model)
    assert not index.crowded()
