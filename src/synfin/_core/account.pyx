"""The account of a run as Python numbers: a tracker, the router and the merge of trackers say it in the same words."""

from libc.stdint cimport UINT32_MAX, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc
from libc.string cimport memcpy

from synfin._core.arena cimport arena_bytes
from synfin._core.by cimport by_bytes
from synfin._core.core cimport *
from synfin._core.duplicates cimport firsts_bytes
from synfin._core.listed cimport Listed
from synfin._core.memory cimport arena_by_number

from synfin import schema

#: What a cap takes, in the order in which it does (core.pxd).
RANK_NAMES = ("unanswered", "half_open", "lingering", "open")
GAUGE_NAMES = tuple(column.name for column in schema.INTERVALS[ICOL_SYN_SENT:ICOL_MIDSTREAM + 1])
COUNT_NAMES = tuple(column.name for column in schema.INTERVALS[ICOL_SYNS:ICOL_CAPTURE_DROPS + 1])


cdef uint64_t* new_histogram() except NULL:
    cdef uint64_t* buckets = <uint64_t*>calloc(RTT_BUCKETS, sizeof(uint64_t))
    if buckets == NULL:
        raise MemoryError("no memory for the interval table")
    return buckets


cdef dict skips_of(const Stats* stats):
    cdef int i
    skips = {name: stats.skips[code] for code, (name, _) in enumerate(schema.SKIPS) if stats.skips[code]}
    skips.update({f"link_type_{i}": stats.link_types[i] for i in range(65536) if stats.link_types[i]})
    return skips


cdef dict peaks_of(const Intervals* iv):
    cdef int i
    return {
        name: {"value": iv.run_peak[i], "time_ns": iv.run_peak_at[i] if iv.run_peak[i] else None}
        for i, name in enumerate(("opening_peak", "half_open_peak", "time_wait_peak"))
    }


cdef dict quantiles_of(const RttHistogram* h):
    if h.samples == 0:
        return {"count": 0, "p50": None, "p90": None, "p99": None, "max": None}
    return {
        "count": h.samples, "p50": rtt_quantile(h, 50), "p90": rtt_quantile(h, 90), "p99": rtt_quantile(h, 99),
        "max": h.max,
    }


# A histogram of the whole run in full: its buckets by the highest value (ns) that they take, empty ones left out.
cdef dict histogram_of(const RunRtt* run):
    cdef int i
    return {
        "count": run.histogram.samples,
        "sum_ns": (<object>run.sum_high << 64) + run.sum_low,
        "buckets": {
            rtt_bucket_top(<uint32_t>i): run.histogram.buckets[i] for i in range(RTT_BUCKETS) if run.histogram.buckets[i]
        },
    }


# Bytes held for connections, by part.
cdef dict memory_of(Core* core):
    names = (
        "flows", "facts", "ages", "others", "kept_keys", "address_pairs", "extras", "wides", "troubles", "copies",
        "copy_pairs", "helds", "vlans", "tunnels", "held_others",
    )
    parts = {name: arena_bytes(arena_by_number(core, i)) for i, name in enumerate(names)}
    parts["index"] = (<uint64_t>core.table.mask + 1) * sizeof(Slot)
    parts["firsts"] = firsts_bytes(&core.firsts)
    for i, name in enumerate(schema.KEYS):
        parts[name] = by_bytes(&core.by[i])
    return parts


cdef dict gauges_of(Core* core):
    cdef Intervals* iv = &core.intervals
    cdef int64_t now[GAUGES]
    cdef uint32_t i
    memcpy(now, iv.gauges, sizeof(now))
    for i in range(iv.slice_mask + 1):       # closed ones hold no change
        add_changes(&iv.slices[i], now)
    return {name: now[i] for i, name in enumerate(GAUGE_NAMES)}


# Of each listed service, in the order of Core.listing, its gauges and counts.
cdef dict listed_of(Core* core, list services):
    cdef const Listed* listed
    cdef dict told = {}
    for i, service in enumerate(services):
        listed = &core.listing.services[<uint32_t>i]
        told[service] = {name: listed.gauges[j] for j, name in enumerate(GAUGE_NAMES)}
        told[service] |= {name: listed.counts[j] for j, name in enumerate(COUNT_NAMES) if name != "capture_drops"}
    return told


cdef dict histograms_of(Core* core):
    cdef int i
    names = ("rtt_server", "rtt_client", "rtt_handshake")
    return {name: histogram_of(&core.intervals.run_rtt[i]) for i, name in enumerate(names)}


cdef dict _counted(str enum, int64_t* counts):
    return {name: counts[code] for code, name in enumerate(schema.ENUMS[enum]) if counts[code]}


cdef dict stats_of(Core* core):
    cdef Stats* stats = &core.stats
    cdef Intervals* iv = &core.intervals
    cdef int i
    known = core.clock != NEVER
    counts = {name: iv.run_counts[i] for i, name in enumerate(COUNT_NAMES)}
    return {
        "packets": stats.packets + stats.skips[<int>VD_OUTSIDE_WINDOW],
        "packets_in_records": stats.packets_in_records,
        "records": stats.records,
        "live": core.table.count,
        "skips": skips_of(stats),
        "ip_bytes": stats.ip_bytes,
        "first_time_ns": stats.first_time if stats.packets else None,
        "last_time_ns": stats.last_time if stats.packets else None,
        "clock_ns": core.clock if known else None,
        "clock_steps": stats.steps,
        "suspects": stats.suspects,
        "icmp": {"errors": stats.icmp_errors, "rejected": stats.icmp_rejected},
        "handshakes": _counted("handshake", stats.handshakes),
        "closes": _counted("close", stats.closes),
        "closers": _counted("side", stats.closers),
        "end_reasons": _counted("end_reason", stats.end_reasons),
        "evicted": {name: stats.evicted[i] for i, name in enumerate(RANK_NAMES) if stats.evicted[i]},
        "cap": core.cap if core.capped and core.cap != UINT32_MAX else None,    # none yet while memory is not full
        "counts": counts,
        "syn_resends": counts["syn_resends"],
        "retransmitted_segments": counts["retransmitted_segments"],
        "gauges": {name: iv.gauges[i] for i, name in enumerate(GAUGE_NAMES)},
        **peaks_of(iv),
        "rtt": {side: quantiles_of(&iv.run_rtt[i].histogram) for i, side in enumerate(("server", "client"))},
    }
