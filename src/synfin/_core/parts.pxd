# A worker's parts of intervals: where several trackers share one input, each writes what it has of an interval instead of
# a row, and merging.pyx makes one row of them. A gauge's peak is that of the sum, so a part holds the gauge at the end of
# each slice; a quantile is that of all samples, so it holds the histogram.
from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memcpy

from synfin._core.intervals cimport COUNTS, GAUGES, PEAKS, RTT_BUCKETS, SLICES, Interval, Intervals

# What stands in Parts.room, followed by `buckets[0]` + `buckets[1]` times Bucket: those of both histograms that hold
# samples.
cdef struct Part:
    int64_t epoch            # how often the clock had stepped back: afterwards, intervals may come again
    int64_t number           # of the interval
    int64_t gauges[GAUGES]
    int64_t course[PEAKS][SLICES]
    int64_t counts[COUNTS]
    int64_t rtt_max[2]
    uint32_t buckets[2]
    bint complete

cdef struct Bucket:
    uint64_t samples
    uint32_t place

cdef struct Parts:
    uint8_t* room            # NULL: not one of several
    uint32_t used            # bytes
    uint32_t size

cdef inline bint parts_full(const Parts* parts) noexcept nogil:
    return parts.used + sizeof(Part) + 2 * RTT_BUCKETS * sizeof(Bucket) > parts.size

# Before: not parts_full; 8-byte sizes keep every part aligned.
cdef inline void part_put(Parts* parts, int64_t epoch, int64_t number, bint complete, const Intervals* iv,
                          const Interval* interval) noexcept nogil:
    cdef Part* part = <Part*>(parts.room + parts.used)
    cdef Bucket* bucket
    cdef int side, place
    parts.used += sizeof(Part)
    part.epoch = epoch
    part.number = number
    part.complete = complete
    memcpy(part.gauges, iv.gauges, sizeof(part.gauges))
    memcpy(part.course, iv.course, sizeof(part.course))
    memcpy(part.counts, interval.counts, sizeof(part.counts))
    for side in range(2):
        part.buckets[side] = 0
        part.rtt_max[side] = interval.rtt[side].max
        if interval.rtt[side].samples == 0:
            continue
        for place in range(RTT_BUCKETS):
            if interval.rtt[side].buckets[place]:
                bucket = <Bucket*>(parts.room + parts.used)
                bucket.place = <uint32_t>place
                bucket.samples = interval.rtt[side].buckets[place]
                parts.used += sizeof(Bucket)
                part.buckets[side] += 1
