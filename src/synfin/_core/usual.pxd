# The usual segment, which is nearly every one: it goes on in order where its end left off, and acknowledges in order,
# in a connection that both ends have open. Nothing is decided here; what the rules of data.pxd make of such a segment
# is done in one stretch.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from synfin._core.brief cimport Brief
from synfin._core.core cimport *
from synfin._core.data cimport add_carries, packet_hash, rtt_add
from synfin._core.seq cimport seq_ge
from synfin._core.wide cimport set_instant

cdef enum:
    # What an end has said before, so that its stream, or what it may be sent, is known.
    USUAL_SENDER = EM_SEEN | EM_NXT | EM_ACK | EM_WINDOW
    USUAL_PEER = EM_NXT | EM_ACK | EM_WINDOW

# Whether the record is of these ends. Before: neither VLAN nor tunnel is part of the key.
cdef inline bint _is_of(Core* core, const Flow* flow, const Brief* brief) noexcept nogil:
    cdef const AddressPair* pair
    if memcmp(flow.port, brief.port, 4) != 0:
        return False
    if brief.ip_version == 4:
        return flow.key_low == brief.low and flow.key_high == brief.high and not flow.marks & FM_IPV6
    if not flow.marks & FM_IPV6 or flow.key_high != brief.hash:
        return False
    pair = <const AddressPair*>arena_at(&core.address_pairs, flow.key_low)
    return (memcmp(pair.addr[brief.sender], brief.ip + 8, 16) == 0
            and memcmp(pair.addr[1 - brief.sender], brief.ip + 24, 16) == 0)

# Both ends ESTABLISHED, and nothing held or unproven.
cdef inline bint _is_open(const Flow* flow) noexcept nogil:
    return (flow.phase == PH_OPEN and flow.state[0] == ST_ESTABLISHED and flow.state[1] == ST_ESTABLISHED
            and not flow.marks & (FM_ATTEMPT | FM_HELD))

# Whether an end's SYN, where it was seen, is acknowledged: else this segment may be what does it.
cdef inline bint _syn_settled(uint16_t marks) noexcept nogil:
    return marks & (EM_SYN | EM_SYN_ACKED) != EM_SYN

cdef inline EndTrouble* _high_words(Core* core, const Brief* brief) noexcept nogil:
    return &trouble_of(core, facts_of(core, brief.flow)).end[brief.sender]

# Tracks a usual segment; False: it is not one, and nothing has changed. Before: as for track_segment, neither VLAN nor
# tunnel is part of the key, and nobody asks for the columns of others.pxd. Touches both lines of the record, and the
# first ones of its facts where an RTT sample begins or ends.
cdef inline bint track_usual(Core* core, const Brief* brief, int64_t time_ns) noexcept nogil:
    cdef Flow* flow = flow_of(core, brief.flow)
    cdef int d = brief.sender
    cdef Seq* sender = &flow.seq[d]
    cdef Seq* peer = &flow.seq[1 - d]
    cdef End* end = &flow.end[d]
    cdef int64_t effective = max(min(time_ns, core.clock), core.clock - core.config.reorder, flow.last_effective)
    cdef uint32_t rise = brief.ack - sender.ack
    cdef uint32_t scaled = <uint32_t>brief.window << end.window_shift
    cdef uint8_t hashed = packet_hash(brief.ip_id, brief.seq, brief.payload_bytes)
    cdef Facts* facts
    if (brief.flow == 0 or not _is_of(core, flow, brief) or not _is_open(flow)
            or flow.deadline <= effective or time_ns < flow.last_seen
            or brief.flags & (TH_FIN | TH_SYN | TH_RST | TH_ACK) != TH_ACK
            or sender.marks & (USUAL_SENDER | EM_UNJUDGED) != USUAL_SENDER
            or peer.marks & (USUAL_PEER | EM_UNJUDGED) != USUAL_PEER or not _syn_settled(peer.marks)
            or brief.seq != sender.nxt or brief.seq - peer.ack > peer.window_max
            or rise > <uint32_t>0x7FFFFFFF or brief.window == 0
            or (brief.vlan != NO_VLAN and brief.vlan != end.vlan)):
        return False
    if brief.payload_bytes:
        if not sender.marks & EM_PAYLOAD:
            sender.marks |= EM_PAYLOAD
            set_instant(core, facts_of(core, brief.flow), AT_PAYLOAD_0 + d, time_ns)
        sender.nxt += brief.payload_bytes
        if not sender.marks & EM_TIMED:
            sender.marks |= EM_TIMED
            flow.timed_end[d] = sender.nxt
            facts_of(core, brief.flow).rtt[d].timed_at = time_ns
        if unlikely(add_carries(&end.payload_bytes, brief.payload_bytes)):
            _high_words(core, brief).payload_bytes_high += 1
    else:
        if rise == 0 and (hashed == end.last_packet or (peer.nxt != sender.ack and brief.window == sender.window)):
            return False                 # it may be a capture duplicate or a duplicate acknowledgement
        if unlikely(add_carries(&end.pure_acks, 1)):
            _high_words(core, brief).pure_acks_high += 1
    if unlikely(add_carries(&end.packets, 1)):
        _high_words(core, brief).packets_high += 1
    if unlikely(add_carries(&end.ip_bytes, brief.ip_bytes)):
        _high_words(core, brief).ip_bytes_high += 1
    if unlikely(add_carries(&end.acked_bytes, rise)):
        _high_words(core, brief).acked_bytes_high += 1
    end.last_packet = hashed
    flow.marks &= ~<uint8_t>(FM_UNSCALED_1 if d else FM_UNSCALED_0)
    sender.marks |= EM_BEYOND
    sender.ack = brief.ack
    sender.window = brief.window
    sender.window_max = max(sender.window_max, scaled)
    if peer.marks & EM_TIMED and seq_ge(brief.ack, flow.timed_end[1 - d]):
        peer.marks &= ~<uint16_t>EM_TIMED
        facts = facts_of(core, brief.flow)
        rtt_add(core, facts, 1 - d, time_ns - facts.rtt[1 - d].timed_at)
    flow.last_seen = time_ns
    flow.last_effective = effective
    flow.deadline = effective + core.config.timeout[PH_OPEN]
    interval_packet(&core.intervals, effective, brief.ip_bytes)
    core.stats.ip_bytes += brief.ip_bytes
    return True
