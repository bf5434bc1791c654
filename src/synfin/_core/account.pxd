# The account of a run as Python numbers: what a tracker, the router and the merge of several trackers say in the same
# words.
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc

from synfin._core.core cimport Stats
from synfin._core.intervals cimport RTT_BUCKETS, Intervals, RttHistogram, RunRtt, rtt_bucket_top, rtt_quantile

cdef inline uint64_t* new_histogram() except NULL:
    cdef uint64_t* buckets = <uint64_t*>calloc(RTT_BUCKETS, sizeof(uint64_t))
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

# A histogram of the whole run in full: its buckets by the highest value (ns) that they take, empty ones left out.
cdef inline dict histogram_of(const RunRtt* run):
    cdef int i
    return {
        "count": run.histogram.samples,
        "sum_ns": (<object>run.sum_high << 64) + run.sum_low,
        "buckets": {
            rtt_bucket_top(<uint32_t>i): run.histogram.buckets[i] for i in range(RTT_BUCKETS) if run.histogram.buckets[i]
        },
    }
