from libc.stdint cimport uint64_t

from synfin._core.core cimport Core, Stats
from synfin._core.intervals cimport Intervals, RttHistogram


cdef uint64_t* new_histogram() except NULL
cdef dict skips_of(const Stats* stats)
cdef dict peaks_of(const Intervals* iv)
cdef dict quantiles_of(const RttHistogram* h)
cdef dict memory_of(Core* core)
cdef dict gauges_of(Core* core)
cdef dict listed_of(Core* core, list services)
cdef dict histograms_of(Core* core)
cdef dict stats_of(Core* core)
