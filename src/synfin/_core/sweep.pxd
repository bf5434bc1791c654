# Capture time goes on: deadlines are met, slices of the interval table are closed, interval rows are written. All of it
# can stop when a sink is full and go on after Python has taken the rows.
from libc.stdint cimport int64_t, uint16_t, uint32_t
from libc.string cimport memset

from synfin._core.by cimport by_close_slice, by_interval, by_tell
from synfin._core.core cimport *
from synfin._core.duplicates cimport DUP_KEEP, forget_all
from synfin._core.parts cimport Part, part_of, part_put, parts_full
from synfin._core.record cimport end_record, expire_record, prefetch_around, prefetch_record
from synfin._core.sink cimport put_int

cdef enum:
    SWEEP_NS = 1000000000    # capture time between sweeps where the slices are longer
    SPARE_ROWS = 4           # what one segment may write (an expired record; a reused or evicted one), rounded up

cdef inline bint rows_full(const Sink* sink) noexcept nogil:
    return sink.rows + SPARE_ROWS > sink.capacity

# ------------------------------------------------------------------------------------------------ deadlines

# Meets the deadlines up to `until` in one bucket. Returns False when the sink is full. While one record is in hand, the
# next but one is being loaded, and what the next one's end will touch.
cdef inline bint sweep_bucket(Core* core, uint16_t slot, int64_t until) noexcept nogil:
    cdef uint32_t number = core.wheel.heads[slot]
    cdef uint32_t next_number, later
    cdef uint16_t to
    cdef Facts* facts
    cdef Flow* flow
    while number:
        flow = flow_of(core, number)
        facts = facts_of(core, number)
        next_number = facts.timer_next
        if next_number:
            prefetch_around(core, facts_of(core, next_number))
            later = facts_of(core, next_number).timer_next
            if later:
                prefetch_record(core, later)
        if flow.deadline <= until:
            if rows_full(&core.rows):
                return False
            expire_record(core, number)
        else:
            to = wheel_slot(&core.wheel, flow.deadline)
            if to != slot:
                timer_unlink(core, number, facts)
                timer_link(core, number, facts, to)
        number = next_number
    return True

# Meets every deadline up to `until`, which never decreases except after a step back. Returns False when the sink is full.
cdef inline bint sweep_deadlines(Core* core, int64_t until) noexcept nogil:
    cdef Wheel* wheel = &core.wheel
    cdef int64_t target = until >> wheel.tick_shift
    cdef int level
    while True:
        # A new tick may open a bucket of a higher wheel, whose records move down to where they belong.
        for level in range(WHEEL_LEVELS - 1, 0, -1):
            if wheel.now & ((<int64_t>1 << (WHEEL_BITS * level)) - 1) == 0:
                if not sweep_bucket(core, <uint16_t>(level * WHEEL_BUCKETS
                                    + ((wheel.now >> (WHEEL_BITS * level)) & (WHEEL_BUCKETS - 1))), until):
                    return False
        if not sweep_bucket(core, <uint16_t>(wheel.now & (WHEEL_BUCKETS - 1)), until):
            return False
        if wheel.now >= target:
            return True
        wheel.now = wheel_next(wheel, target)

# ------------------------------------------------------------------------------------------------ interval rows

cdef inline void put_quantiles(Sink* s, int base, const RttHistogram* h) noexcept nogil:
    if h.samples == 0:
        return
    put_int(s, base, rtt_quantile(h, 50))
    put_int(s, base + 1, rtt_quantile(h, 90))
    put_int(s, base + 2, rtt_quantile(h, 99))
    put_int(s, base + 3, h.max)

# Writes one row, but for the round trips: the caller puts them, and goes on to the next row.
cdef inline void put_interval_row(Sink* s, int64_t interval_ns, const Part* part, bint knows_drops,
                                  bint knows_duplicates) noexcept nogil:
    cdef int64_t peak
    cdef int i, j
    put_int(s, ICOL_INTERVAL_START, part.number * interval_ns)
    put_int(s, ICOL_INTERVAL_NS, interval_ns)
    put_int(s, ICOL_COMPLETE, part.complete)
    for i in range(GAUGES):
        put_int(s, ICOL_SYN_SENT + i, part.gauges[i])
    for i in range(PEAKS):
        peak = 0
        for j in range(SLICES):
            peak = max(peak, part.course[i][j])
        put_int(s, ICOL_OPENING_PEAK + i, peak)
    for i in range(COUNTS):
        if ((ICOL_SYNS + i != ICOL_CAPTURE_DROPS or knows_drops)
                and (ICOL_SYNS + i != ICOL_CAPTURE_DUPLICATES or knows_duplicates)):
            put_int(s, ICOL_SYNS + i, part.counts[i])

# Whether no further interval may end before Python has taken what is finished.
cdef inline bint intervals_full(const Core* core) noexcept nogil:
    return parts_full(&core.parts) if core.parts.room != NULL else rows_full(&core.interval_rows)

# Writes the row of the interval that ends with the last closed slice, unless nothing happened in it.
cdef inline void put_interval(Core* core, int64_t number, bint complete) noexcept nogil:
    cdef Intervals* iv = &core.intervals
    cdef Interval* interval = &iv.intervals[number & iv.interval_mask]
    cdef bint used = interval.used
    cdef Part part
    cdef int i
    for i in range(GAUGES):
        if iv.gauges[i]:
            used = True
    if used and core.parts.room != NULL:
        part_put(&core.parts, core.stats.steps, number, complete, iv, interval)
        if core.keyed:
            by_interval(core, number, complete)
    elif used:
        part_of(&part, core.stats.steps, number, complete, iv, interval)
        put_interval_row(&core.interval_rows, iv.interval_ns, &part, iv.knows_drops, core.config.duplicates != DUP_KEEP)
        put_quantiles(&core.interval_rows, ICOL_RTT_SERVER_P50_NS, &interval.rtt[0])
        put_quantiles(&core.interval_rows, ICOL_RTT_CLIENT_P50_NS, &interval.rtt[1])
        core.interval_rows.rows += 1
    for i in range(2):
        if interval.rtt[i].samples:
            memset(interval.rtt[i].buckets, 0, RTT_BUCKETS * sizeof(uint64_t))
            interval.rtt[i].samples = 0
            interval.rtt[i].max = 0
    memset(iv.course, 0, sizeof(iv.course))
    memset(interval.counts, 0, sizeof(interval.counts))
    interval.used = False
    iv.near_from = iv.near_to = NEVER

# Applies the changes of the lowest open slice: from now on the gauges are those of its end.
cdef inline void close_slice(Core* core) noexcept nogil:
    cdef Intervals* iv = &core.intervals
    cdef Slice* s = &iv.slices[iv.next_slice & iv.slice_mask]
    cdef int i, at
    if s.used:
        add_changes(s, iv.gauges)
        memset(s, 0, sizeof(Slice))
    if unlikely(core.keyed):
        by_close_slice(core)
    at = <int>(iv.next_slice - floor_div(iv.next_slice, SLICES) * SLICES)
    for i in range(PEAKS):
        iv.course[i][at] = iv.gauges[peak_gauge(i)]
        if iv.course[i][at] > iv.run_peak[i]:
            iv.run_peak[i] = iv.course[i][at]
            iv.run_peak_at[i] = iv.next_slice * iv.slice_ns
    iv.next_slice += 1

# The first open slice once nothing is left that could change a gauge before `slice_number`: gaps of years cost nothing.
cdef inline void skip_silence(Core* core, int64_t slice_number) noexcept nogil:
    cdef Intervals* iv = &core.intervals
    cdef int64_t start
    if core.table.count or iv.next_slice <= iv.last_used or iv.next_slice % SLICES:
        return
    start = floor_div(slice_number, SLICES) * SLICES
    if start > iv.next_slice:
        iv.next_slice = start

# Settles everything before `until`: deadlines, slices, rows; the next packet that moves the clock does so again where no
# further record may live, else none for a while. Returns False when a sink is full.
cdef inline bint sweep(Core* core, int64_t until) noexcept nogil:
    cdef Intervals* iv = &core.intervals
    cdef int64_t end
    if not by_tell(core):
        return False
    while True:
        skip_silence(core, floor_div(until, iv.slice_ns))
        end = (iv.next_slice + 1) * iv.slice_ns
        if end > until:
            break
        if intervals_full(core) or not sweep_deadlines(core, end - 1):
            return False
        close_slice(core)
        if iv.next_slice % SLICES == 0:
            put_interval(core, floor_div(iv.next_slice - 1, SLICES), True)
            if not by_tell(core):
                return False
    if not sweep_deadlines(core, until):
        return False
    core.next_sweep = end if end < until + SWEEP_NS else until + SWEEP_NS
    if unlikely(core.table.count >= core.cap):
        core.next_sweep = until + 1
    return True

# ------------------------------------------------------------------------------------------------ clock

# Begins the clock with the first packet.
cdef inline void start_clock(Core* core, int64_t clock) noexcept nogil:
    core.clock = clock
    core.wheel.now = (clock - core.config.reorder) >> core.wheel.tick_shift
    core.intervals.next_slice = floor_div(clock - core.config.reorder, core.intervals.slice_ns)
    core.intervals.last_used = core.intervals.next_slice - 1
    core.since = core.intervals.next_slice
    core.next_sweep = clock - core.config.reorder

# Closes all open slices as they stand and writes the intervals in hand as not complete. Returns False when a sink is
# full; another call goes on.
cdef inline bint cut_intervals(Core* core) noexcept nogil:
    cdef Intervals* iv = &core.intervals
    cdef int64_t last = floor_div(core.clock, iv.slice_ns)
    if not by_tell(core):
        return False
    while iv.next_slice <= last:
        if intervals_full(core):
            return False
        close_slice(core)
        if iv.next_slice % SLICES == 0 or iv.next_slice > last:
            put_interval(core, floor_div(iv.next_slice - 1, SLICES), False)
            if not by_tell(core):
                return False
    return True

# The input clock steps back (SPEC 2): deadlines and last effective times move with it, the intervals in hand are cut.
# What the clock has reached before is settled first, whenever the last sweep was. Returns False when a sink is full;
# another call goes on.
cdef inline bint step_back(Core* core, int64_t clock) noexcept nogil:
    cdef int64_t by = core.clock - clock
    cdef uint32_t number
    cdef Flow* flow
    if not sweep(core, core.clock - core.config.reorder) or not cut_intervals(core):
        return False
    forget_all(&core.firsts)
    start_clock(core, clock)
    memset(core.wheel.heads, 0, sizeof(core.wheel.heads))
    memset(core.wheel.level_count, 0, sizeof(core.wheel.level_count))
    for number in range(1, core.flows.fresh):
        flow = flow_of(core, number)
        if flow.phase == PH_FREE:
            continue
        flow.deadline -= by
        flow.last_effective -= by
        timer_link(core, number, facts_of(core, number), wheel_slot(&core.wheel, flow.deadline))
    core.stats.steps += 1
    return True

# ------------------------------------------------------------------------------------------------ end of input

# Ends everything: the reorder allowance falls away, what is left at the clock is written as it stands. Returns False
# when a sink is full; the caller goes on with *number, which starts at 1.
cdef inline bint finish_records(Core* core, uint32_t* number) noexcept nogil:
    while number[0] < core.flows.fresh:
        if rows_full(&core.rows):
            return False
        if flow_of(core, number[0]).phase != PH_FREE:
            end_record(core, number[0], END_END_OF_INPUT, core.clock)
        number[0] += 1
    return True
