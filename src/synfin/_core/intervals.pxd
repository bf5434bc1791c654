# The interval table (SPEC 5) while it grows. Changes fall into slices (a tenth of an interval) and counts into intervals
# at effective time, which is never before the clock minus `reorder`; so only the slices since then are open, in a ring,
# and a slice is closed once and for all when every deadline before its end has been met.
from libc.stdint cimport int64_t, uint32_t, uint64_t

from synfin._core.declared cimport *

cdef extern from "core.h" nogil:
    int highest_bit(uint64_t value)
    const int64_t NEVER

cdef enum:
    GAUGES = ICOL_MIDSTREAM - ICOL_SYN_SENT + 1
    COUNTS = ICOL_CAPTURE_DROPS - ICOL_SYNS + 1
    G_TIME_WAIT = ICOL_TIME_WAIT - ICOL_SYN_SENT
    G_CONNECTIONS = ICOL_CONNECTIONS - ICOL_SYN_SENT
    G_OPENING = ICOL_OPENING - ICOL_SYN_SENT
    G_HALF_OPEN = ICOL_HALF_OPEN - ICOL_SYN_SENT
    G_HALF_CLOSED = ICOL_HALF_CLOSED - ICOL_SYN_SENT
    G_MIDSTREAM = ICOL_MIDSTREAM - ICOL_SYN_SENT
    RTT_HANDSHAKE = 2        # after server and client
    RTTS = 3
    PEAKS = 3                # gauges of which a row tells the highest value, too
    SLICES = 10              # of one interval
    RTT_BUCKETS = 128 + 56 * 64

# What changed in a slice, by what faces of records have in common (face_of in core.pxd): one count for each end's state
# and one for all traits together, so that a change is six additions and no question. close_slice makes gauges of them.
cdef struct Slice:
    int64_t states[16]       # by ST_*; those before ST_SYN_SENT are no gauge's
    int64_t traits[32]       # by the five bits of a face's traits
    bint used

cdef struct RttHistogram:
    uint64_t samples
    int64_t max
    uint64_t* buckets        # RTT_BUCKETS; a live run may go on for years

# Round trips of the whole run and their sum, which one word may not hold.
cdef struct RunRtt:
    RttHistogram histogram
    uint64_t sum_low
    uint64_t sum_high

cdef struct Interval:
    int64_t counts[COUNTS]
    RttHistogram rtt[2]      # server, client
    bint used

cdef struct Intervals:
    int64_t interval_ns
    int64_t slice_ns
    int64_t next_slice       # the lowest open one; NEVER before the first packet
    int64_t last_used        # the highest slice with a change or count
    int64_t gauges[GAUGES]   # as of the end of the last closed slice
    int64_t course[PEAKS][SLICES]    # opening, half_open, time_wait at the ends of the slices of next_slice's interval
    int64_t run_peak[PEAKS]
    int64_t run_peak_at[PEAKS]
    RunRtt run_rtt[RTTS]     # server, client, handshake
    int64_t run_counts[COUNTS]
    uint32_t slice_mask
    uint32_t interval_mask
    Slice* slices
    Interval* intervals
    bint knows_drops
    uint32_t hand            # what was counted of the record in hand, for its key (by.pxd): a bit for each count, and
                             # above them for each RTT
    int64_t hand_rtt[2]
    Interval* near           # the interval that counted last: `near_slice` of it covers [near_from, near_to)
    int64_t near_slice
    int64_t near_from
    int64_t near_to

# The gauge of a peak.
cdef inline int peak_gauge(int peak) noexcept nogil:
    return G_OPENING if peak == 0 else (G_HALF_OPEN if peak == 1 else G_TIME_WAIT)

cdef inline int64_t floor_div(int64_t a, int64_t b) noexcept nogil:
    cdef int64_t q = a // b          # cdivision: rounds towards zero
    return q - 1 if a % b < 0 else q

# 1 ns wide below 128 ns, then 64 equal parts per power of two (SPEC 5).
cdef inline uint32_t rtt_bucket(int64_t value) noexcept nogil:
    cdef int exponent
    if value < 128:
        return <uint32_t>value
    exponent = highest_bit(<uint64_t>value)
    return <uint32_t>(128 + (exponent - 7) * 64 + ((value >> (exponent - 6)) & 63))

cdef inline int64_t rtt_bucket_middle(uint32_t bucket) noexcept nogil:
    cdef int shift
    if bucket < 128:
        return bucket
    shift = <int>((bucket - 128) // 64) + 1
    return ((64 + <int64_t>((bucket - 128) & 63)) << shift) + ((<int64_t>1 << shift) >> 1)

# The middle of the nearest-rank value's bucket. Before: samples > 0.
cdef inline int64_t rtt_quantile(const RttHistogram* h, int percent) noexcept nogil:
    cdef uint64_t rank = (h.samples * <uint64_t>percent + 99) // 100
    cdef uint64_t below = 0
    cdef int bucket
    for bucket in range(RTT_BUCKETS):
        below += h.buckets[bucket]
        if below >= rank:
            return rtt_bucket_middle(bucket)
    return h.max

cdef inline void rtt_histogram_add(RttHistogram* h, int64_t value) noexcept nogil:
    h.buckets[rtt_bucket(value)] += 1
    h.max = value if h.samples == 0 or value > h.max else h.max
    h.samples += 1

# The highest value that the bucket takes.
cdef inline int64_t rtt_bucket_top(uint32_t bucket) noexcept nogil:
    cdef int shift
    if bucket < 128:
        return bucket
    shift = <int>((bucket - 128) // 64) + 1
    return ((64 + <int64_t>((bucket - 128) & 63)) << shift) + ((<int64_t>1 << shift) - 1)

cdef inline bint is_near(const Intervals* iv, int64_t effective) noexcept nogil:
    return iv.near_from <= effective < iv.near_to

# Nearly all that a packet changes lies in the slice that the packet itself was counted in: no division then.
cdef inline int64_t interval_slice_at(Intervals* iv, int64_t effective) noexcept nogil:
    return iv.near_slice if is_near(iv, effective) else _slice_at(iv, effective)

cdef inline int64_t _slice_at(Intervals* iv, int64_t effective) noexcept nogil:
    cdef int64_t number = floor_div(effective, iv.slice_ns)
    if number < iv.next_slice:       # cannot happen: effective time is never before the open slices
        number = iv.next_slice
    if number > iv.last_used:
        iv.last_used = number
    return number

cdef inline Interval* _interval_of(Intervals* iv, int64_t slice_number) noexcept nogil:
    return &iv.intervals[floor_div(slice_number, SLICES) & iv.interval_mask]

cdef inline Interval* interval_at(Intervals* iv, int64_t effective) noexcept nogil:
    return iv.near if is_near(iv, effective) else _interval_of(iv, _slice_at(iv, effective))

# Something happened to the record in hand, once with the packet in hand, or with its end.
cdef inline void interval_count(Intervals* iv, int64_t effective, int column) noexcept nogil:
    interval_add(iv, effective, column, 1)
    iv.hand |= <uint32_t>1 << (column - ICOL_SYNS)

cdef inline void interval_add(Intervals* iv, int64_t effective, int column, int64_t count) noexcept nogil:
    cdef Interval* interval = interval_at(iv, effective)
    interval.counts[column - ICOL_SYNS] += count
    interval.used = True
    iv.run_counts[column - ICOL_SYNS] += count

# One packet of a tracked connection: the only count on every packet's way.
cdef inline void interval_packet(Intervals* iv, int64_t effective, uint32_t ip_bytes) noexcept nogil:
    if not is_near(iv, effective):
        iv.near_slice = _slice_at(iv, effective)
        iv.near = _interval_of(iv, iv.near_slice)
        iv.near.used = True
        # The slice, not the interval: last_used must see every slice that counts.
        iv.near_from = iv.near_slice * iv.slice_ns
        iv.near_to = iv.near_from + iv.slice_ns
    iv.near.counts[ICOL_PACKETS - ICOL_SYNS] += 1
    iv.near.counts[ICOL_IP_BYTES - ICOL_SYNS] += ip_bytes

# Before: value >= 0.
cdef inline void run_rtt_add(RunRtt* run, int64_t value) noexcept nogil:
    rtt_histogram_add(&run.histogram, value)
    run.sum_low += <uint64_t>value
    run.sum_high += run.sum_low < <uint64_t>value

cdef inline void interval_rtt(Intervals* iv, int64_t effective, int side, int64_t value) noexcept nogil:
    rtt_histogram_add(&interval_at(iv, effective).rtt[side], value)
    run_rtt_add(&iv.run_rtt[side], value)
    iv.hand |= <uint32_t>1 << (COUNTS + side)
    iv.hand_rtt[side] = value
