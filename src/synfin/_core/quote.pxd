# An ICMP error that quotes a segment of a record: it is no packet of the record, but says what became of one (SPEC 4,
# `unreachable`).
from libc.stdint cimport int64_t, uint8_t, uint32_t

from synfin._core.by cimport by_packet
from synfin._core.core cimport *
from synfin._core.icmp cimport says_unreachable
from synfin._core.row cimport handshake_outcome
from synfin._core.seq cimport seq_ge, seq_le

# Whether the quoted segment can be one that its sender had in flight: not below what the peer acknowledged, not above
# what was sent (RFC 5927 section 4.1, as Linux checks it). Where nothing is known of its sender, nothing is judged.
cdef inline bint quotes_what_was_sent(const Flow* flow, const Facts* facts, int end, uint32_t seq) noexcept nogil:
    cdef const Seq* sender = &flow.seq[end]
    if not sender.marks & EM_NXT:
        return True
    if not seq_le(seq, sender.nxt):
        return False
    if flow.seq[1 - end].marks & EM_ACK:
        return seq_ge(seq, flow.seq[1 - end].ack)
    return not (sender.marks & EM_SYN) or seq_ge(seq, facts.opening[end].isn)

# The client's SYN did not arrive: the record is not opening until it comes again or is answered.
cdef inline void mark_unreachable(Core* core, Flow* flow, Facts* facts, const Segment* segment,
                                  int64_t effective) noexcept nogil:
    cdef Trouble* trouble = trouble_of(core, facts)
    cdef uint32_t face = face_of(flow)
    if not facts.marks & FF_UNREACHABLE:
        facts.marks |= FF_UNREACHABLE
        trouble.icmp_type = segment.icmp_type
        trouble.icmp_code = segment.icmp_code
        if handshake_outcome(flow, facts) == HS_UNREACHABLE:
            interval_count(&core.intervals, effective, ICOL_UNREACHABLE)
    flow.seq[client_end(flow)].marks |= EM_UNREACHABLE
    face_change(core, effective, face, face_of(flow))

# One quoted segment. Before: as for track_segment. It restarts no deadline, and a record whose deadline it would pass is
# left to its own next packet.
cdef inline void track_quote(Core* core, const Segment* segment, const PacketRef* packet,
                             const Key* key) noexcept nogil:
    cdef uint32_t number = table_find(core, key)
    cdef int64_t effective = packet.time_ns if packet.time_ns < core.clock else core.clock
    cdef Flow* flow
    cdef Facts* facts
    cdef int end = key.sender
    if number == 0:
        return
    flow = flow_of(core, number)
    facts = facts_of(core, number)
    effective = max(effective, core.clock - core.config.reorder, flow.last_effective)
    if flow.deadline <= effective:
        return
    if not quotes_what_was_sent(flow, facts, end, segment.seq):
        core.stats.icmp_rejected += 1
        return
    core.stats.icmp_errors += 1
    trouble_of(core, facts).icmp_errors += 1
    flow.last_effective = effective
    if (flow.marks & FM_ATTEMPT and flow.phase == PH_SYN and end == client_end(flow) and says_unreachable(segment)
            and flow.seq[end].marks & EM_SYN and segment.seq == facts.opening[end].isn):
        mark_unreachable(core, flow, facts, segment, effective)
        if core.keyed:
            by_packet(core, number, effective, 0, 0)
