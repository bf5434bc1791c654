# One segment, from its key to its record: find the record, decide the border, apply the segment, move the deadline.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from synfin._core.ages cimport age_packet
from synfin._core.border cimport BEGINS, BELONGS, HOLD, PROVES, begin_from_held, border_of, hold_syn
from synfin._core.by cimport by_packet
from synfin._core.closing cimport note_fins_acknowledged, settle_phase, take_fin, take_rst
from synfin._core.core cimport *
from synfin._core.data cimport add_packet, count_odd, count_packet, is_acceptable, take_segment
from synfin._core.machine cimport ack_events, fin_events, move, standing_facts
from synfin._core.opening cimport (
    complete_by_proof, complete_if_both_acknowledged, forget_unreachable, infer_peer_isn, take_syn, take_synack,
)
from synfin._core.others cimport adopt_others, note_others, split_others
from synfin._core.record cimport end_record, evict_record, expire_record
from synfin._core.roundtrip cimport acks_syn, note_syn_acknowledged
from synfin._core.seq cimport seq_gt
from synfin._core.watch cimport watch_begin, watch_hold, watch_prove
from synfin._core.wide cimport flow_id_of_record, id_of_record, set_first, set_place, syn_payload_of

# ------------------------------------------------------------------------------------------------ neither SYN nor RST

# In an attempt without a SYN-ACK, only the client's going on proves the handshake, and only an acknowledgement of exactly
# the peer's SYN is no leftover of an older connection (SPEC 3.2, 3.4).
cdef inline bint client_proves(Context* x) noexcept nogil:
    cdef uint32_t own_isn = x.facts.opening[x.d].isn
    return (x.d == client_end(x.flow) and x.flow.phase == PH_SYN and x.flow.seq[x.d].marks & EM_SYN
            and (x.segment.seq == own_isn + 1 or x.segment.seq == own_isn + 1 + syn_payload_of(x.core, x.facts)))

cdef inline bint acks_peers_syn(Context* x) noexcept nogil:
    cdef const ShortOpening* peer = &x.facts.opening[1 - x.d]
    if not x.segment.flags & TH_ACK:
        return False
    if x.flow.seq[1 - x.d].marks & EM_SYN:
        return acks_syn(x, peer.isn)
    return peer.marks & OM_INFERRED and x.segment.ack == peer.isn

# After a SYN-ACK, a server that goes on has had its acknowledgement, though the tap has not seen it; unless Fast Open let
# it send early.
cdef inline bint server_proves(Context* x) noexcept nogil:
    cdef Seq* sender = &x.flow.seq[x.d]
    if (not x.flow.marks & FM_ATTEMPT or x.flow.phase != PH_SYNACK or x.d == client_end(x.flow)
            or x.facts.marks & FF_DATA_ACCEPTED or not x.facts.marks & FF_SERVER_DID):
        return False
    return (x.segment.payload_bytes > 0 or x.segment.flags & TH_FIN
            or (x.segment.flags & TH_ACK and sender.marks & EM_ACK and seq_gt(x.segment.ack, sender.ack)))

cdef inline void take_other(Context* x) noexcept nogil:
    cdef bint fin_acknowledged_before = (x.flow.seq[1 - x.d].marks & EM_FIN_ACKED) != 0
    cdef bint unanswered = x.flow.marks & FM_ATTEMPT and not x.facts.marks & FF_SYNACK
    cdef bint proven = unanswered and client_proves(x)
    cdef const Closing* closing
    if unanswered and not proven and not acks_peers_syn(x):
        trouble_of(x.core, x.facts).odd_segments += 1
        return
    if not is_acceptable(x):
        count_odd(x)
        return
    if proven or server_proves(x):
        complete_by_proof(x, proven)
    elif unanswered and x.d != client_end(x.flow):
        x.facts.marks |= FF_SERVER_ACKED
        forget_unreachable(x)
    note_syn_acknowledged(x)
    if x.segment.payload_bytes:
        closing = peek_closing(x.core, x.facts)
        if closing.has & CM_FIN and closing.closer != x.d:
            closing_of(x.core, x.facts).payload_after_fin += x.segment.payload_bytes
    take_segment(x)
    if x.segment.flags & TH_ACK:
        ack_events(x)
    if x.segment.flags & TH_FIN:
        take_fin(x, fin_acknowledged_before)
        fin_events(x)
    standing_facts(x)
    note_fins_acknowledged(x)
    complete_if_both_acknowledged(x)

# ------------------------------------------------------------------------------------------------ deadlines

cdef inline bint is_resent_fin(Context* x) noexcept nogil:
    return (x.segment.flags & (TH_FIN | TH_SYN | TH_RST) == TH_FIN and x.flow.seq[x.d].marks & EM_FIN
            and closing_of(x.core, x.facts).fin_seq[x.d] == x.segment.seq + x.segment.payload_bytes)

# The table of SPEC 3.2: which packets restart which deadline. A new phase always starts its own.
cdef inline bint restarts(Context* x, uint8_t phase_before, bint rejected_rst) noexcept nogil:
    cdef uint8_t phase = x.flow.phase
    if phase != phase_before:
        return True
    if phase == PH_SYN:
        return x.segment.flags & (TH_SYN | TH_ACK | TH_RST) == TH_SYN
    if phase == PH_SYNACK:
        return x.segment.flags & (TH_SYN | TH_RST) == TH_SYN
    if phase == PH_OPEN:
        return not rejected_rst
    if phase == PH_CLOSED:
        return is_resent_fin(x)
    if phase == PH_RESET:
        return x.segment.flags & TH_RST != 0
    return True

cdef inline void settle_deadline(Context* x, uint8_t phase_before, bint rejected_rst) noexcept nogil:
    cdef int64_t deadline
    x.flow.last_effective = x.effective
    if unlikely(x.core.capped):
        age_packet(x.core, x.number, phase_before, x.flow.phase)
    if not restarts(x, phase_before, rejected_rst):
        return
    deadline = x.effective + x.core.config.timeout[x.flow.phase]
    if x.flow.phase != phase_before:
        timer_set(x.core, x.number, x.flow, x.facts, deadline)
    else:
        x.flow.deadline = deadline       # later than before: the wheel will see

# ------------------------------------------------------------------------------------------------ the record

# Applies a segment to the record that it belongs to. `face` and `phase` are the record's before it (0: it is new).
cdef inline void apply_segment(Context* x, uint32_t face, uint8_t phase) noexcept nogil:
    cdef bint rejected_rst = False
    x.unique = 0
    if x.core.config.others:
        note_others(x)
    count_packet(x)
    if x.segment.flags & TH_RST:
        x.flow.seq[x.d].marks |= EM_BEYOND
        rejected_rst = not take_rst(x)
    elif not x.segment.flags & TH_SYN:
        x.flow.seq[x.d].marks |= EM_BEYOND
        take_other(x)
    elif x.segment.flags & TH_ACK:
        take_synack(x)
    else:
        take_syn(x)
    if x.unique != x.segment.payload_bytes:
        trouble_of(x.core, x.facts).end[x.d].repeated_bytes += x.segment.payload_bytes - x.unique
    if not x.flow.marks & FM_ATTEMPT:
        settle_phase(x)
    settle_deadline(x, phase, rejected_rst)
    face_change(x.core, x.effective, face, face_of(x.flow))

# Which end is the client where no SYN decides (SPEC 3.3).
cdef inline void guess_direction(Context* x) noexcept nogil:
    cdef Config* config = &x.core.config
    cdef bint server0 = is_server_port(config, x.flow.port[0])
    cdef bint server1 = is_server_port(config, x.flow.port[1])
    cdef bint high0 = x.flow.port[0] >= 32768
    cdef bint high1 = x.flow.port[1] >= 32768
    cdef int client = x.d
    if server0 != server1:
        x.facts.choices.direction = DIR_SERVER_PORT
        client = 1 if server0 else 0
    elif high0 != high1:
        x.facts.choices.direction = DIR_HIGH_PORT
        client = 0 if high0 else 1
    else:
        x.facts.choices.direction = DIR_FIRST_PACKET
    if client:
        x.flow.marks |= FM_CLIENT_IS_1

# What the first packet of an unknown key says of the states (SPEC 3.2).
cdef inline void set_first_states(Context* x) noexcept nogil:
    cdef Flow* flow = x.flow
    cdef int peer = 1 - x.d
    if x.segment.flags & TH_RST or not x.segment.flags & TH_SYN:
        guess_direction(x)
        flow.marks |= FM_NOT_SEEN
        flow.phase = PH_ONE_SIDED
        flow.state[0] = ST_ESTABLISHED
        flow.state[1] = ST_ESTABLISHED
        flow.end[0].window_shift = WINDOW_SCALE_MAX
        flow.end[1].window_shift = WINDOW_SCALE_MAX
        return
    flow.marks |= FM_ATTEMPT
    flow.phase = PH_SYN
    if not x.segment.flags & TH_ACK:
        x.facts.choices.direction = DIR_SYN
        flow.marks |= FM_BEGAN_WITH_SYN
        if x.d:
            flow.marks |= FM_CLIENT_IS_1
        flow.state[peer] = ST_LISTEN
        flow.seq[peer].marks |= EM_PASSIVE
        return
    x.facts.choices.direction = DIR_SYNACK
    if peer:
        flow.marks |= FM_CLIENT_IS_1
    flow.state[x.d] = ST_SYN_RECEIVED
    flow.state[peer] = ST_SYN_SENT
    flow.seq[x.d].marks |= EM_PASSIVE
    flow.seq[peer].marks |= EM_SYN_ACKED
    infer_peer_isn(x)

cdef inline void use_record(Context* x, uint32_t number) noexcept nogil:
    x.number = number
    x.flow = flow_of(x.core, number)
    x.facts = facts_of(x.core, number)

# Before: no record has the key.
cdef inline void begin_record(Context* x, const Key* key) noexcept nogil:
    use_record(x, flow_create(x.core, key))
    set_first(x.core, x.facts, x.d, x.packet.time_ns, x.segment.seq)
    set_place(x.core, x.facts, x.packet.number, x.packet.file_id, x.packet.interface_id)
    keep_tunnel(x.core, x.facts, x.segment.tunnel)
    if x.core.watch != NULL:
        watch_begin(x.core.watch, x.number, key, flow_id_of_record(x.core, x.facts, key))
    set_first_states(x)
    apply_segment(x, 0, PH_FREE)

# The held SYN was the opening of a new connection: the old record ends, the new one begins with it and this segment.
cdef inline void begin_proven(Context* x, const Key* key) noexcept nogil:
    cdef Held held = held_of(x.core, x.facts)[0]
    cdef uint32_t birth = x.core.watch.of[x.number].held if x.core.watch != NULL else 0
    cdef uint32_t others = split_others(x.core, x.number) if x.core.config.others else 0
    cdef uint32_t face
    x.flow.marks &= ~<uint8_t>FM_HELD
    end_record(x.core, x.number, END_REUSE, x.effective)
    use_record(x, flow_create(x.core, key))
    if others:
        adopt_others(x.core, x.number, others)
    if x.core.watch != NULL:
        watch_prove(x.core.watch, x.number, birth)
    x.facts.choices.direction = DIR_SYN
    x.flow.marks |= FM_ATTEMPT | FM_BEGAN_WITH_SYN | (FM_CLIENT_IS_1 if held.end else 0)
    x.flow.phase = PH_SYN
    x.flow.state[1 - held.end] = ST_LISTEN
    x.flow.seq[1 - held.end].marks |= EM_PASSIVE
    begin_from_held(x, &held)
    move(x, held.end, EV_SND_SYN)
    face = face_of(x.flow)
    face_change(x.core, x.effective, 0, face)
    apply_segment(x, face, PH_FREE)

# Somebody asks which packets went where, and this one is held.
cdef inline void note_held(Context* x, const Key* key) noexcept nogil:
    cdef const Held* held = held_of(x.core, x.facts)
    watch_hold(x.core.watch, x.number, key,
               id_of_record(x.core, key, held.first_ns, x.segment.seq), held.copies.total == 1)

cdef inline void count_segment(Core* core, const Segment* segment, int64_t effective) noexcept nogil:
    interval_packet(&core.intervals, effective, segment.ip_bytes)
    core.stats.ip_bytes += segment.ip_bytes
    if segment.flags & (TH_SYN | TH_RST) == TH_SYN:
        interval_count(&core.intervals, effective, ICOL_SYNACKS if segment.flags & TH_ACK else ICOL_SYNS)

# One segment; `guess` as in table_find_again. Before: the core's clock is the packet's, every deadline and slice up to
# clock - reorder is settled (sweep.pxd), the arenas and the sink hold their reserves.
cdef inline void track_segment(Core* core, const Segment* segment, const PacketRef* packet,
                               const Key* key, uint32_t guess) noexcept nogil:
    cdef Context x
    cdef Flow* flow
    cdef int64_t fresh = packet.time_ns if packet.time_ns < core.clock else core.clock
    cdef uint32_t face
    cdef uint8_t phase
    cdef int border
    if fresh < core.clock - core.config.reorder:
        fresh = core.clock - core.config.reorder
    x.core = core
    x.segment = segment
    x.packet = packet
    x.d = key.sender
    x.effective = fresh
    x.number = table_find_again(core, key, guess)
    if x.number:
        flow = flow_of(core, x.number)
        if flow.last_effective > fresh:
            x.effective = flow.last_effective
        if flow.deadline <= x.effective:
            expire_record(core, x.number)
            x.number = 0
            x.effective = fresh
    if x.number == 0:
        if unlikely(core.table.count + 1 >= core.cap):
            core.next_sweep = NEVER      # when it is full, deadlines are met packet by packet: room may come of them
            if core.table.count >= core.cap:
                evict_record(core)
        count_segment(core, segment, fresh)
        begin_record(&x, key)
        return
    use_record(&x, x.number)
    border = border_of(&x)
    if border == BEGINS:
        end_record(core, x.number, END_REUSE, x.effective)
        x.effective = fresh
    if border == PROVES:
        begin_proven(&x, key)            # ends the other, so that only then the segment is counted as the new one's
    count_segment(core, segment, x.effective)
    if border == BEGINS:
        begin_record(&x, key)
    elif border == HOLD:
        phase = flow.phase
        face = face_of(flow)
        hold_syn(&x)
        if core.watch != NULL:
            note_held(&x, key)
        settle_phase(&x)                 # it may show the second end of a midstream record
        settle_deadline(&x, phase, False)
        face_change(core, x.effective, face, face_of(flow))
    elif border == BELONGS:
        apply_segment(&x, face_of(flow), flow.phase)

# ------------------------------------------------------------------------------------------------ capture duplicates

# A copy of a packet that was tracked: it counts where its ends have a record, and nothing else looks at it. Returns False
# when there is none (any more). Before: as for track_segment.
cdef inline bint track_copy(Core* core, const Segment* segment, const PacketRef* packet, const Key* key) noexcept nogil:
    cdef Context x
    x.core = core
    x.segment = segment
    x.d = key.sender
    x.number = table_find(core, key)
    if x.number == 0:
        return False
    use_record(&x, x.number)
    x.effective = packet.time_ns if packet.time_ns < core.clock else core.clock
    x.effective = max(x.effective, core.clock - core.config.reorder, x.flow.last_effective)
    if x.flow.deadline <= x.effective:
        expire_record(core, x.number)
        return False
    interval_packet(&core.intervals, x.effective, segment.ip_bytes)
    interval_count(&core.intervals, x.effective, ICOL_CAPTURE_DUPLICATES)
    core.stats.ip_bytes += segment.ip_bytes
    add_packet(&x)
    trouble_of(core, x.facts).end[x.d].capture_duplicates += 1
    if core.keyed:
        by_packet(core, x.number, x.effective, 1, segment.ip_bytes)
    return True
