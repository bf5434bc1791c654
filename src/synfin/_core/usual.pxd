# The usual segment, which is nearly every one: it goes on in order where its end left off, and acknowledges in order, in a
# connection that both ends have open. Nothing is decided here; what the rules of data.pxd make of such a segment is done
# in one stretch.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from synfin._core.core cimport *
from synfin._core.data cimport add_carries, packet_hash, rtt_add
from synfin._core.seq cimport seq_ge

cdef enum:
    # What an end has said before, so that its stream, or what it may be sent, is known.
    USUAL_SENDER = EM_SEEN | EM_BEYOND | EM_NXT | EM_ACK | EM_WINDOW
    USUAL_PEER = EM_NXT | EM_ACK | EM_WINDOW

# Whether an end's SYN, where it was seen, is acknowledged: else this segment may be what does it.
cdef inline bint _syn_settled(uint16_t marks) noexcept nogil:
    return marks & (EM_SYN | EM_SYN_ACKED) != EM_SYN

# Both ends ESTABLISHED, and nothing held or unproven.
cdef inline bint _is_open(const Flow* flow, int d) noexcept nogil:
    return (flow.phase == PH_OPEN and flow.state[0] == ST_ESTABLISHED and flow.state[1] == ST_ESTABLISHED
            and not flow.marks & (FM_ATTEMPT | FM_HELD | (FM_UNSCALED_1 if d else FM_UNSCALED_0)))

# Tracks a usual segment; False: it is not one, and nothing has changed. Before: as for track_segment, and the segment
# belongs to the record, whose deadline is not over. Touches both lines of the record, and the first of its facts where
# an RTT sample begins or ends.
cdef inline bint track_usual(Core* core, const Segment* segment, int64_t time_ns, uint32_t number, Flow* flow, int d,
                             int64_t effective) noexcept nogil:
    cdef Seq* sender = &flow.seq[d]
    cdef Seq* peer = &flow.seq[1 - d]
    cdef End* end = &flow.end[d]
    cdef uint32_t payload = segment.payload_bytes
    cdef uint32_t rise = segment.ack - sender.ack
    cdef uint32_t ahead = segment.seq - peer.ack         # of what the peer has acknowledged
    cdef uint32_t scaled = <uint32_t>segment.window << end.window_shift
    cdef uint8_t hashed = packet_hash(segment)
    cdef Facts* facts
    if (not _is_open(flow, d) or segment.flags & (TH_FIN | TH_SYN | TH_RST | TH_ACK) != TH_ACK
            or sender.marks & (USUAL_SENDER | EM_UNJUDGED) != USUAL_SENDER
            or peer.marks & (USUAL_PEER | EM_UNJUDGED) != USUAL_PEER or not _syn_settled(peer.marks)
            or segment.seq != sender.nxt or ahead > peer.window_max
            or rise > <uint32_t>0x7FFFFFFF or segment.window == 0 or time_ns < flow.last_seen
            or (segment.has_vlan and segment.vlan_id != end.vlan)):
        return False
    if payload:
        if not sender.marks & EM_PAYLOAD:
            return False                 # the first
        sender.nxt += payload
        if not sender.marks & EM_TIMED:
            sender.marks |= EM_TIMED
            flow.timed_end[d] = sender.nxt
            facts_of(core, number).rtt.timed_at[d] = time_ns
        if unlikely(add_carries(&end.payload_bytes, payload)):
            trouble_of(core, facts_of(core, number)).end[d].payload_bytes_high += 1
    else:
        if rise == 0 and (hashed == end.last_packet or (peer.nxt != sender.ack and segment.window == sender.window)):
            return False                 # it may be a capture duplicate or a duplicate acknowledgement
        if unlikely(add_carries(&end.pure_acks, 1)):
            trouble_of(core, facts_of(core, number)).end[d].pure_acks_high += 1
    if unlikely(add_carries(&end.packets, 1)):
        trouble_of(core, facts_of(core, number)).end[d].packets_high += 1
    if unlikely(add_carries(&end.ip_bytes, segment.ip_bytes)):
        trouble_of(core, facts_of(core, number)).end[d].ip_bytes_high += 1
    if unlikely(add_carries(&end.acked_bytes, rise)):
        trouble_of(core, facts_of(core, number)).end[d].acked_bytes_high += 1
    end.last_packet = hashed
    sender.ack = segment.ack
    sender.window = segment.window
    if scaled > sender.window_max:
        sender.window_max = scaled
    if peer.marks & EM_TIMED and seq_ge(segment.ack, flow.timed_end[1 - d]):
        peer.marks &= ~<uint16_t>EM_TIMED
        facts = facts_of(core, number)
        rtt_add(core, facts, 1 - d, time_ns - facts.rtt.timed_at[1 - d])
    flow.last_seen = time_ns
    flow.last_effective = effective
    flow.deadline = effective + core.config.timeout[PH_OPEN]
    interval_packet(&core.intervals, effective, segment.ip_bytes)
    core.stats.ip_bytes += segment.ip_bytes
    return True
