# The usual segment, which is nearly every one: it goes on in order where its end left off, and acknowledges in order,
# in a connection that both ends have open. Nothing is decided here; what the rules of data.pxd make of such a segment
# is done in one stretch. Likewise the answer that completes a handshake, and the segments of a close as far as they go on
# in order: what they mean for it, the rules of closing.pxd say.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from synfin._core.brief cimport Brief
from synfin._core.closing cimport note_fins_acknowledged, settle_phase, take_fin
from synfin._core.core cimport *
from synfin._core.data cimport LONG_RTT_NS, add_carries, packet_hash, rtt_add
from synfin._core.machine cimport ack_events, fin_events, standing_facts
from synfin._core.roundtrip cimport enter_handshake
from synfin._core.segment cimport settle_deadline
from synfin._core.seq cimport seq_ge
from synfin._core.wide cimport instant_of, set_instant

cdef enum:
    # What an end has said before, so that its stream, or what it may be sent, is known.
    USUAL_SENDER = EM_SEEN | EM_NXT | EM_ACK | EM_WINDOW
    USUAL_PEER = EM_NXT | EM_ACK | EM_WINDOW
    # The same of an opener whose SYN was answered, and of who answered it.
    OPENING_SENDER = EM_SEEN | EM_NXT | EM_WINDOW | EM_SYN | EM_SYN_ACKED
    OPENING_PEER = EM_NXT | EM_ACK | EM_WINDOW | EM_SYN
    OPENING_FACTS = FF_SYN_CAME | FF_SYNACK_CAME | FF_SYNACK

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

# A close has begun and is not over, or this begins it. Nothing but acknowledgements and FINs without payload, and the
# order of eviction does not move with it.
cdef inline bint _is_closing(const Core* core, const Flow* flow, const Brief* brief) noexcept nogil:
    return ((flow.phase == PH_OPEN or flow.phase == PH_CLOSING) and not flow.marks & (FM_ATTEMPT | FM_HELD)
            and brief.payload_bytes == 0 and not core.capped
            and (brief.flags & TH_FIN or (flow.seq[0].marks | flow.seq[1].marks) & EM_FIN))

# Whether an end's SYN, where it was seen, is acknowledged: else this segment may be what does it.
cdef inline bint _syn_settled(uint16_t marks) noexcept nogil:
    return marks & (EM_SYN | EM_SYN_ACKED) != EM_SYN

cdef inline EndTrouble* _high_words(Core* core, const Brief* brief) noexcept nogil:
    return &trouble_of(core, facts_of(core, brief.flow)).end[brief.sender]

# What a segment of a close means, once it is counted. Before: _is_closing, the segment is in order.
cdef inline void _go_on_closing(Core* core, const Brief* brief, int64_t time_ns, int64_t effective) noexcept nogil:
    cdef Context x
    cdef Segment segment                 # of both, what the rules for a close look at
    cdef PacketRef packet
    cdef uint8_t phase
    cdef uint32_t face
    cdef bint acknowledged
    x.core = core
    x.number = brief.flow
    x.flow = flow_of(core, brief.flow)
    x.facts = facts_of(core, brief.flow)
    x.segment = &segment
    x.packet = &packet
    x.effective = effective
    x.unique = 0
    x.d = brief.sender
    segment.seq = brief.seq
    segment.ack = brief.ack
    segment.flags = brief.flags
    segment.payload_bytes = 0
    packet.time_ns = time_ns
    phase = x.flow.phase
    face = face_of(x.flow)
    acknowledged = (x.flow.seq[1 - x.d].marks & EM_FIN_ACKED) != 0
    ack_events(&x)
    if brief.flags & TH_FIN:
        take_fin(&x, acknowledged)
        fin_events(&x)
    standing_facts(&x)
    note_fins_acknowledged(&x)
    settle_phase(&x)
    settle_deadline(&x, phase, False)
    face_change(core, effective, face, face_of(x.flow))

# The opener acknowledges the SYN-ACK, and nothing else: the handshake is complete. Returns as track_usual. Before: the
# record is of these ends, and does not end before this segment.
cdef inline bint _track_answer(Core* core, const Brief* brief, int64_t time_ns, int64_t effective) noexcept nogil:
    cdef Flow* flow = flow_of(core, brief.flow)
    cdef Facts* facts = facts_of(core, brief.flow)
    cdef const uint8_t* machine = core.config.machine
    cdef int d = brief.sender
    cdef Seq* sender = &flow.seq[d]
    cdef Seq* peer = &flow.seq[1 - d]
    cdef End* end = &flow.end[d]
    cdef uint8_t hashed = packet_hash(brief.ip_id, brief.seq, 0)
    cdef uint32_t face = face_of(flow)
    if (flow.marks & (FM_ATTEMPT | FM_HELD | FM_BEGAN_WITH_SYN) != FM_ATTEMPT | FM_BEGAN_WITH_SYN
            or flow.state[d] != ST_SYN_SENT or flow.state[1 - d] != ST_SYN_RECEIVED or d != client_end(flow)
            or sender.marks & (OPENING_SENDER | EM_ACK | EM_UNJUDGED | EM_FIN) != OPENING_SENDER
            or peer.marks & (OPENING_PEER | EM_SYN_ACKED | EM_TIMED | EM_UNJUDGED | EM_FIN) != OPENING_PEER
            or facts.marks & (OPENING_FACTS | FF_DONE) != OPENING_FACTS or facts.extra or core.capped
            or brief.seq != sender.nxt or brief.seq != peer.ack
            or brief.ack != peer.nxt or brief.ack != facts.opening[1 - d].isn + 1
            or brief.payload_bytes or brief.flags & TH_FIN or brief.window == 0 or hashed == end.last_packet
            or time_ns - facts.born > LONG_RTT_NS or (brief.vlan != NO_VLAN and brief.vlan != end.vlan)):
        return False
    interval_packet(&core.intervals, effective, brief.ip_bytes)
    core.stats.ip_bytes += brief.ip_bytes
    end.packets += 1                     # none of these can carry: it sent a SYN before, and nothing else
    end.ip_bytes += brief.ip_bytes
    end.pure_acks += 1
    end.last_packet = hashed
    sender.marks |= EM_ACK | EM_BEYOND
    sender.ack = brief.ack
    sender.window = brief.window
    sender.window_max = max(sender.window_max, <uint32_t>brief.window << end.window_shift)
    peer.marks |= EM_SYN_ACKED
    set_instant(core, facts, AT_DONE, time_ns)
    facts.choices.quality_client = RQ_CLEAN
    facts.marks |= FF_DONE | FF_COMPLETE
    interval_rtt(&core.intervals, effective, 1, time_ns - instant_of(core, facts, AT_SYNACK))
    enter_handshake(core, facts)
    interval_count(&core.intervals, effective, ICOL_COMPLETED)
    flow.state[d] = machine[EV_SND_ACK_OF_SYN * ST_COUNT + ST_SYN_SENT]
    flow.state[1 - d] = machine[EV_RCV_ACK_OF_SYN * ST_COUNT + ST_SYN_RECEIVED]
    flow.marks &= ~<uint8_t>(FM_ATTEMPT | (FM_UNSCALED_1 if d else FM_UNSCALED_0))
    flow.phase = PH_OPEN
    flow.last_seen = time_ns
    flow.last_effective = effective
    timer_set(core, brief.flow, flow, facts, effective + core.config.timeout[PH_OPEN])
    face_change(core, effective, face, face_of(flow))
    return True

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
    cdef bint closing
    if (brief.flow == 0 or brief.flags & (TH_SYN | TH_RST | TH_ACK) != TH_ACK or not _is_of(core, flow, brief)
            or flow.deadline <= effective or time_ns < flow.last_seen):
        return False
    if flow.phase == PH_SYNACK:
        return _track_answer(core, brief, time_ns, effective)
    closing = brief.flags & TH_FIN or not _is_open(flow)
    if ((closing and not _is_closing(core, flow, brief))
            or sender.marks & (USUAL_SENDER | EM_UNJUDGED) != USUAL_SENDER
            or peer.marks & (USUAL_PEER | EM_UNJUDGED) != USUAL_PEER or not _syn_settled(peer.marks)
            or brief.seq != sender.nxt or brief.seq - peer.ack > peer.window_max
            or rise > <uint32_t>0x7FFFFFFF or (brief.window == 0 and not brief.flags & TH_FIN)
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
    elif not brief.flags & TH_FIN:
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
    interval_packet(&core.intervals, effective, brief.ip_bytes)
    core.stats.ip_bytes += brief.ip_bytes
    if closing:
        _go_on_closing(core, brief, time_ns, effective)
        return True
    flow.last_effective = effective
    flow.deadline = effective + core.config.timeout[PH_OPEN]
    return True
