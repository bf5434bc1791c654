# Parts of intervals: where several trackers share one input, or where tables by key are asked for, a tracker writes what
# it has of an interval instead of a row, and merging.pyx makes rows of all of them. A gauge's peak is that of the sum, so
# a part holds the gauge at the end of each slice; a quantile is that of all samples, so it holds the histogram.
from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memcpy, memset

from synfin._core.intervals cimport COUNTS, GAUGES, PEAKS, RTT_BUCKETS, SLICES, Interval, Intervals

cdef enum:
    ID_BYTES = 20            # table (0: the interval table itself), IP version, address, port: in the order of rows
    ID_VERSION = 1           # where they begin
    ID_ADDRESS = 2
    ID_PORT = 18
    ID_OTHERS = 255          # in place of an IP version: all that have no part of their own

# What stands in Parts.room, followed by `buckets[0]` + `buckets[1]` times Bucket: those of both histograms that hold
# samples, in any order. A tracker writes an interval's parts one after another: by table, and by key where several share
# one input.
cdef struct Part:
    int64_t epoch            # how often the clock had stepped back: afterwards, intervals may come again
    int64_t number           # of the interval
    int64_t gauges[GAUGES]
    int64_t course[PEAKS][SLICES]
    int64_t counts[COUNTS]
    int64_t rtt_max[2]
    uint32_t buckets[2]
    uint8_t id[ID_BYTES]
    bint complete
    bint knows_drops         # as Intervals.knows_drops

cdef struct Bucket:
    uint64_t samples
    uint32_t place

cdef struct Parts:
    uint8_t* room            # NULL: rows are written instead
    uint32_t used            # bytes
    uint32_t size

cdef inline bint parts_full(const Parts* parts) noexcept nogil:
    return parts.used + sizeof(Part) + 2 * RTT_BUCKETS * sizeof(Bucket) > parts.size

# What a tracker has of an interval, but for the histograms' buckets.
cdef inline void part_of(Part* part, int64_t epoch, int64_t number, bint complete, const Intervals* iv,
                         const Interval* interval) noexcept nogil:
    cdef int side
    memset(part, 0, sizeof(Part))
    part.epoch = epoch
    part.number = number
    part.complete = complete
    part.knows_drops = iv.knows_drops
    memcpy(part.gauges, iv.gauges, sizeof(part.gauges))
    memcpy(part.course, iv.course, sizeof(part.course))
    memcpy(part.counts, interval.counts, sizeof(part.counts))
    for side in range(2):
        part.rtt_max[side] = interval.rtt[side].max

# Room for the next part: 8-byte sizes keep every one aligned. Before: not parts_full.
cdef inline Part* part_next(Parts* parts) noexcept nogil:
    cdef Part* part = <Part*>(parts.room + parts.used)
    parts.used += sizeof(Part)
    return part

# A bucket of the part that was begun last; those of side 0 come first.
cdef inline void part_bucket(Parts* parts, Part* part, int side, uint32_t place, uint64_t samples) noexcept nogil:
    cdef Bucket* bucket = <Bucket*>(parts.room + parts.used)
    bucket.place = place
    bucket.samples = samples
    parts.used += sizeof(Bucket)
    part.buckets[side] += 1

# Before: not parts_full.
cdef inline void part_put(Parts* parts, int64_t epoch, int64_t number, bint complete, const Intervals* iv,
                          const Interval* interval) noexcept nogil:
    cdef Part* part = part_next(parts)
    cdef int side, place
    part_of(part, epoch, number, complete, iv, interval)
    for side in range(2):
        if interval.rtt[side].samples == 0:
            continue
        for place in range(RTT_BUCKETS):
            if interval.rtt[side].buckets[place]:
                part_bucket(parts, part, side, <uint32_t>place, interval.rtt[side].buckets[place])
