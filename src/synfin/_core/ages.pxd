# Which record a cap takes next (SPEC 8), in constant time and exactly. Each live record stands in one of four lists, by
# its phase, and every packet of a record moves it to the new end of the list of the phase that it now has. A phase
# changes with a packet of the record only, so nothing else moves it, and each list is always in the order in which its
# records' last packets came in the input. The old end of the first list that is not empty is therefore the record to
# take: no search, no clock, and no ties, since two packets never come at once.
#
# The links lie beside the records, under the same numbers, and exist only where a cap is set: a packet then touches its
# record's Age and those of its two neighbours.
from libc.stdint cimport uint8_t, uint32_t

from synfin._core.arena cimport RECORDS_SHIFT
from synfin._core.core cimport *

# Before: Core.capped.
cdef inline Age* age_of(Core* core, uint32_t number) noexcept nogil:
    return <Age*>core.ages.chunks[number >> RECORDS_SHIFT] + (number & ((1 << RECORDS_SHIFT) - 1))     # as flow_of

# What goes first: unanswered SYNs and midstream records of which one end was seen, which anybody can make without a peer;
# then half-open ones; then those that are over and only linger; then all others.
cdef inline uint8_t rank_of(uint8_t phase) noexcept nogil:
    if phase == PH_OPEN or phase == PH_CLOSING:
        return RANK_OPEN
    if phase == PH_SYNACK:
        return RANK_HALF_OPEN
    return RANK_LINGERING if phase >= PH_CLOSED else RANK_UNANSWERED

# Takes a record out of its list. `phase` is the one that its last packet left it in.
cdef inline void age_forget(Core* core, uint32_t number, uint8_t phase) noexcept nogil:
    cdef Age* age = age_of(core, number)
    cdef Rank* rank = &core.ranks[rank_of(phase)]
    if age.older:
        age_of(core, age.older).newer = age.newer
    else:
        rank.oldest = age.newer
    if age.newer:
        age_of(core, age.newer).older = age.older
    else:
        rank.newest = age.older

# Puts a record at the new end of its list.
cdef inline void age_begin(Core* core, uint32_t number, uint8_t phase) noexcept nogil:
    cdef Age* age = age_of(core, number)
    cdef Rank* rank = &core.ranks[rank_of(phase)]
    age.newer = 0
    age.older = rank.newest
    if age.older:
        age_of(core, age.older).newer = number
    else:
        rank.oldest = number
    rank.newest = number

# A packet left a record in `phase`; `before` is the phase before it, PH_FREE where it is the record's first.
cdef inline void age_packet(Core* core, uint32_t number, uint8_t before, uint8_t phase) noexcept nogil:
    if before == PH_FREE:
        age_begin(core, number, phase)
    elif core.ranks[rank_of(phase)].newest != number:
        age_forget(core, number, before)
        age_begin(core, number, phase)

# The record that the cap takes, 0: none is live.
cdef inline uint32_t age_oldest(const Core* core) noexcept nogil:
    cdef int rank = 0
    while rank < RANKS - 1 and core.ranks[rank].oldest == 0:
        rank += 1
    return core.ranks[rank].oldest
