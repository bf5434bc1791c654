# Interim rows (SPEC 7): what records that live long have come to so far, while they go on. They say what a final row
# would, and change nothing: neither records nor gauges nor counts. A pass looks at every record once, in steps, so that
# packets can be tracked between two of them.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport realloc

from synfin._core.core cimport *
from synfin._core.row cimport put_interim_row
from synfin._core.sweep cimport rows_full

cdef enum:
    PASS_NS = 1000000000     # capture time between the beginnings of two passes, where rows are not due more often
    STEP_RECORDS = 16384     # that are looked at in one step

# `since`, by the number of a record: the capture time of its last interim row, or one that is not after its birth. It is
# not looked at before a period has gone by from then on, so that a pass mostly reads this array alone. Neither birth nor
# end of a record enters anything here: where a number is free when it is looked at, its next record begins later.
cdef struct Interim:
    Sink rows
    int64_t* since
    uint32_t room            # numbers of records that `since` has room for
    uint32_t next            # record to be looked at next; 0: no pass is going on
    int64_t begun            # clock when the last pass began
    int64_t steps            # of the clock that `since` takes into account (Stats.steps)

# Room for the numbers of all records. Returns -1 without memory.
cdef inline int interim_reserve(Core* core, Interim* interim) noexcept nogil:
    cdef uint32_t room = core.flows.chunk_count << RECORDS_SHIFT
    cdef int64_t* since
    cdef uint32_t i
    if room <= interim.room:
        return 0
    since = <int64_t*>realloc(interim.since, room * sizeof(int64_t))
    if since == NULL:
        return -1
    for i in range(interim.room, room):
        since[i] = NEVER
    interim.since = since
    interim.room = room
    return 0

# Whether capture time has gone on by `period` since `start`, which is not after it. After a step back of the clock a
# record's first packet may lie in the future; as long as a period ago, for all that is known.
cdef inline bint is_past(int64_t clock, int64_t start, int64_t period) noexcept nogil:
    return <uint64_t>clock - <uint64_t>start >= <uint64_t>period

# Looks at one record. Before: the sink has room for one row.
cdef inline void interim_look(Core* core, Interim* interim, uint32_t number, int64_t period) noexcept nogil:
    cdef int64_t born
    cdef uint8_t phase = flow_of(core, number).phase
    if phase == PH_FREE or phase >= PH_CLOSED:    # one that lingers is told by its final row
        interim.since[number] = core.clock
        return
    born = facts_of(core, number).born
    if is_past(core.clock, born, period):
        put_interim_row(&interim.rows, core, number)
        interim.since[number] = core.clock
    else:
        interim.since[number] = born

# One step of a pass, or of none where the last one is recent. Returns whether the pass is over; if not, another call
# goes on, once the rows are taken if the sink is full. Before: the clock runs, interim_reserve promised room.
cdef inline bint interim_step(Core* core, Interim* interim, int64_t period) noexcept nogil:
    cdef uint32_t last, i
    if interim.steps != core.stats.steps:
        # How long ago anything was is not known any more: all count from here.
        interim.steps = core.stats.steps
        interim.begun = core.clock
        for i in range(interim.room):
            interim.since[i] = core.clock
    if interim.next == 0:
        if not is_past(core.clock, interim.begun, period if period < PASS_NS else PASS_NS):
            return True
        interim.begun = core.clock
        interim.next = 1
    last = interim.next + STEP_RECORDS
    if last > core.flows.fresh:
        last = core.flows.fresh
    while interim.next < last:
        if is_past(core.clock, interim.since[interim.next], period):
            if rows_full(&interim.rows):
                return False
            interim_look(core, interim, interim.next, period)
        interim.next += 1
    if interim.next < core.flows.fresh:
        return False
    interim.next = 0
    return True
