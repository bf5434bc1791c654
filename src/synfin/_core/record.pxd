# The end of records: by deadline, by reuse of the two ends, at a cap, at the end of the input.
from libc.stdint cimport int64_t, uint32_t

from synfin._core.ages cimport age_forget, age_oldest, rank_of
from synfin._core.border cimport release_held
from synfin._core.by cimport by_end
from synfin._core.copies cimport forget_copies
from synfin._core.core cimport *
from synfin._core.others cimport keep_held_others
from synfin._core.row cimport handshake_outcome, put_row
from synfin._core.watch cimport watch_end

cdef extern from "core.h" nogil:
    void prefetch_write(const void* p)

# ------------------------------------------------------------------------------------------------ loading ahead

# Starts loading a record.
cdef inline void prefetch_record(Core* core, uint32_t number) noexcept nogil:
    cdef const char* facts = <const char*>facts_of(core, number)
    cdef uint32_t at
    prefetch_write(flow_of(core, number))
    prefetch_write(<const char*>flow_of(core, number) + 64)
    for at in range(0, sizeof(Facts), 64):
        prefetch_write(facts + at)

# Starts loading what a record's close, or its end, touches beyond the record: its Extra, and its neighbours in the
# wheel's bucket, from which it is taken. Before: the facts are loaded, or on their way long enough.
cdef inline void prefetch_around(Core* core, const Facts* facts) noexcept nogil:
    cdef const char* extra = <const char*>peek_extra(core, facts)
    if facts.extra:
        prefetch_write(extra)
        prefetch_write(extra + 64)
        prefetch_write(extra + sizeof(Extra) - 1)
    prefetch_write(&facts_of(core, facts.timer_next).timer_prev)
    prefetch_write(&facts_of(core, facts.timer_prev).timer_next)

# ------------------------------------------------------------------------------------------------ release

cdef inline void give_back(Arena* arena, uint32_t number) noexcept nogil:
    if number:
        arena_give(arena, number)

# Before: a held SYN has been released or begins a record.
cdef inline void release_copies(Core* core, uint32_t number) noexcept nogil:
    cdef Copies* copies = <Copies*>arena_at(&core.copies, number)
    forget_copies(core, &copies.end[0])
    forget_copies(core, &copies.end[1])
    give_back(&core.helds, copies.held)
    arena_give(&core.copies, number)

cdef inline void release_blocks(Core* core, uint32_t number, Flow* flow, Facts* facts) noexcept nogil:
    cdef const Extra* extra = peek_extra(core, facts)
    if facts.extra:
        give_back(&core.troubles, extra.trouble)
        if extra.copies:
            release_copies(core, extra.copies)
        give_back(&core.vlans, extra.vlans)
        give_back(&core.tunnels, extra.tunnel)
        give_back(&core.wides, extra.wide)
        arena_give(&core.extras, facts.extra)
    if core.config.others:
        keep_held_others(core, others_of(core, number))
    if flow.marks & FM_IPV6:
        arena_give(&core.address_pairs, flow.key_low)
    flow.phase = PH_FREE
    flow.marks = 0                 # a packet ahead may still name the record: its addresses are nobody's now
    arena_give(&core.flows, number)

# ------------------------------------------------------------------------------------------------ the end

# What the end by a deadline or by reuse says of the attempt and of TIME-WAIT.
cdef inline void settle_outcome(Core* core, Flow* flow, Facts* facts, int reason, int64_t at) noexcept nogil:
    cdef Closing* closing
    cdef int outcome = handshake_outcome(flow, facts)
    if flow.phase < PH_CLOSED and outcome == HS_UNANSWERED:
        interval_count(&core.intervals, at, ICOL_UNANSWERED)
    elif flow.phase < PH_CLOSED and outcome == HS_HALF_OPEN:
        interval_count(&core.intervals, at, ICOL_HALF_OPEN_EXPIRED)
    if flow.state[0] == ST_TIME_WAIT or flow.state[1] == ST_TIME_WAIT:
        closing = closing_of(core, facts)
        closing.time_wait_end = TWE_REUSED if reason == END_REUSE else TWE_EXPIRED
        closing.has |= CM_TIME_WAIT_END

# What is kept beside the record ends with it.
cdef inline void attend_end(Core* core, uint32_t number, const Key* key, int reason, int64_t at) noexcept nogil:
    cdef const Flow* flow = flow_of(core, number)
    if core.watch != NULL:
        watch_end(core.watch, number, key, client_end(flow))
    if core.capped:
        age_forget(core, number, flow.phase)
    if core.keyed and reason != END_END_OF_INPUT:
        by_end(core, number, at)

# Writes the row of a record and forgets the record. `at` is the effective time at which it leaves the gauges; the end of
# the input takes nothing off them. Before: the sink has room for one row.
cdef inline void end_record(Core* core, uint32_t number, int reason, int64_t at) noexcept nogil:
    cdef Flow* flow = flow_of(core, number)
    cdef Facts* facts = facts_of(core, number)
    cdef Key key
    flow_key(core, number, &key)
    prefetch_write(&core.table.slots[key.hash & core.table.mask])
    release_held(core, flow, facts)
    if reason != END_END_OF_INPUT:
        if reason != END_EVICTED:
            settle_outcome(core, flow, facts, reason, at)
        face_change(core, at, face_of(flow), 0)
    put_row(core, number, &key, reason)
    if unlikely(core.attended):
        attend_end(core, number, &key, reason, at)
    table_remove(&core.table, key.hash, number)
    timer_unlink(core, number, facts)
    release_blocks(core, number, flow, facts)

# A record whose deadline has passed ends at that deadline, whenever it is noticed.
cdef inline void expire_record(Core* core, uint32_t number) noexcept nogil:
    cdef Flow* flow = flow_of(core, number)
    end_record(core, number, END_ATTEMPT_TIMEOUT if flow.marks & FM_ATTEMPT else END_IDLE, flow.deadline)

# Ends the record that the cap takes next, at the input clock. Before: a record is live, the sink has room for one row.
cdef inline void evict_record(Core* core) noexcept nogil:
    cdef uint32_t number = age_oldest(core)
    core.stats.evicted[rank_of(flow_of(core, number).phase)] += 1
    interval_count(&core.intervals, core.clock, ICOL_EVICTED)
    end_record(core, number, END_EVICTED, core.clock)
