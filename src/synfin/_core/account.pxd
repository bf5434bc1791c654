# The account of a run as Python numbers: what a tracker, the router and the merge of several trackers say in the same
# words.
from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc

from synfin._core.core cimport Stats
from synfin._core.intervals cimport RTT_BUCKETS, Intervals, RttHistogram, rtt_quantile

cdef inline uint32_t* new_histogram() except NULL:
    cdef uint32_t* buckets = <uint32_t*>calloc(RTT_BUCKETS, sizeof(uint32_t))
    if buckets == NULL:
        raise MemoryError("no memory for the interval table")
    return buckets

# `names` is schema.SKIPS.
cdef inline dict skips_of(const Stats* stats, names):
    cdef int i
    skips = {name: stats.skips[code] for code, (name, _) in enumerate(names) if stats.skips[code]}
    skips.update({f"link_type_{i}": stats.link_types[i] for i in range(65536) if stats.link_types[i]})
    return skips

cdef inline dict peaks_of(const Intervals* iv):
    cdef int i
    return {
        name: {"value": iv.run_peak[i], "time_ns": iv.run_peak_at[i] if iv.run_peak[i] else None}
        for i, name in enumerate(("opening_peak", "half_open_peak", "time_wait_peak"))
    }

cdef inline dict quantiles_of(const RttHistogram* h):
    if h.samples == 0:
        return {"count": 0, "p50": None, "p90": None, "p99": None, "max": None}
    return {
        "count": h.samples, "p50": rtt_quantile(h, 50), "p90": rtt_quantile(h, 90), "p99": rtt_quantile(h, 99),
        "max": h.max,
    }
