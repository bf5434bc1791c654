# How a connection opens: SYN, SYN-ACK, their copies, the handshake's completion and its two round trips (SPEC 3.2, 4
# "Opening"; RFC 9293 sections 3.5 and 3.10.7).
from libc.stdint cimport int64_t, uint16_t, uint32_t

from synfin._core.core cimport *
from synfin._core.data cimport account_ack, account_window, open_lowest_hole
from synfin._core.machine cimport covers_syn, move, standing_facts
from synfin._core.seq cimport seq_ge, seq_gt
from synfin._core.tcp cimport tcp_options, tcp_timestamps

# ------------------------------------------------------------------------------------------------ what a SYN says

cdef inline void read_opening(const Segment* segment, const Options* options, Opening* opening) noexcept nogil:
    opening.option_kinds = options.kinds
    opening.isn = segment.seq
    opening.ts_val = options.ts_val
    opening.mss = options.mss
    opening.window = segment.window
    opening.window_scale = options.window_scale
    opening.has = options.has
    opening.ttl = segment.ttl
    opening.marks = OM_COPY | (OM_DONT_FRAGMENT if segment.dont_fragment else 0)

# The shift of an end's later windows: what it offered if both offered, 0 if one did not, 14 if its SYN was not seen.
cdef inline int window_shift(const Facts* facts, int end) noexcept nogil:
    cdef const Opening* own = &facts.opening[end]
    cdef const Opening* peer = &facts.opening[1 - end]
    if peer.marks & OM_COPY and not peer.has & OPT_WINDOW_SCALE:
        return 0
    if not own.marks & OM_COPY:
        return WINDOW_SCALE_MAX
    if not own.has & OPT_WINDOW_SCALE:
        return 0
    return own.window_scale if own.window_scale < WINDOW_SCALE_MAX else WINDOW_SCALE_MAX

cdef inline void set_window_shifts(Flow* flow, const Facts* facts) noexcept nogil:
    flow.end[0].window_shift = <uint8_t>window_shift(facts, 0)
    flow.end[1].window_shift = <uint8_t>window_shift(facts, 1)

# What the client's first SYN offers beyond its end's own columns.
cdef inline void note_offer(Facts* facts, uint16_t flags, const Options* options, uint32_t payload) noexcept nogil:
    facts.syn_payload = payload
    if flags & TH_ECE and flags & TH_CWR:
        facts.ecn = ECN_ACCECN_OFFERED if flags & TH_AE else ECN_OFFERED
    if options.has & OPT_MPTCP:
        facts.mptcp = MP_OFFERED
    if payload:
        facts.fast_open = TFO_DATA
    elif options.fast_open == 1:
        facts.fast_open = TFO_COOKIE_REQUEST

# What of a SYN-ACK answers an offer: the bits (AE, CWR, ECE), and 8 for MPTCP.
cdef inline uint8_t answer_of(uint16_t flags, const Options* options) noexcept nogil:
    return ((8 if options.has & OPT_MPTCP else 0) | (4 if flags & TH_AE else 0)
            | (2 if flags & TH_CWR else 0) | (1 if flags & TH_ECE else 0))

# RFC 3168 section 6.1.1 and RFC 9768 table 2.
cdef inline void note_answer(Facts* facts, uint8_t answer) noexcept nogil:
    cdef int bits = answer & 7
    if facts.mptcp == MP_OFFERED and answer & 8:
        facts.mptcp = MP_AGREED
    if facts.ecn == ECN_ACCECN_OFFERED and (bits == 2 or bits == 3 or bits == 4 or bits == 6):
        facts.ecn = ECN_ACCECN_AGREED
    elif (facts.ecn == ECN_OFFERED or facts.ecn == ECN_ACCECN_OFFERED) and bits & 1 and not bits & 2:
        facts.ecn = ECN_AGREED

# ------------------------------------------------------------------------------------------------ copies

cdef inline Copies* copies_of(Core* core, Facts* facts) noexcept nogil:
    if facts.copies == 0:
        facts.copies = arena_take(&core.copies)
    return <Copies*>arena_at(&core.copies, facts.copies)

cdef inline void ring_push(Ring* ring, int64_t time_ns, const Opening* opening, uint32_t seq_end) noexcept nogil:
    cdef Copy* copy = &ring.copies[ring.next]
    copy.time_ns = time_ns
    copy.opening = opening[0]
    copy.seq_end = seq_end
    ring.next = (ring.next + 1) % MAX_COPIES
    if ring.count < MAX_COPIES:
        ring.count += 1

# The i-th remembered copy, the oldest one first.
cdef inline const Copy* ring_at(const Ring* ring, int i) noexcept nogil:
    return &ring.copies[(ring.next + MAX_COPIES - ring.count + i) % MAX_COPIES]

cdef inline void push_copy(EndCopies* copies, int64_t time_ns, const Opening* opening, uint32_t seq_end) noexcept nogil:
    ring_push(&copies.ring, time_ns, opening, seq_end)
    copies.total += 1

# Remembers a SYN or SYN-ACK of the sender until the peer has answered. The usual single one stands in Facts alone, its
# time in syn_first. Before: that is not yet changed by this segment.
cdef inline void remember_copy(Context* x, const Opening* opening) noexcept nogil:
    cdef Opening* first = &x.facts.opening[x.d]
    cdef bint client = x.d == client_end(x.flow)
    cdef bint usual = client == (not x.segment.flags & TH_ACK)
    cdef EndCopies* copies
    if not first.marks & OM_COPY:
        first[0] = opening[0]
        set_window_shifts(x.flow, x.facts)
        if usual:
            return
    elif x.flow.seq[x.d].marks & EM_SYN_ACKED:
        return
    copies = &copies_of(x.core, x.facts).end[x.d]
    if copies.total == 0 and x.flow.seq[x.d].marks & EM_SYN:
        push_copy(copies, x.facts.syn_first[SK_SYN] if client else x.facts.syn_first[SK_SYNACK], first, first.isn + 1)
    push_copy(copies, x.packet.time_ns, opening, x.segment.seq + 1 + x.segment.payload_bytes)

# Counts a SYN or SYN-ACK; `kind` is SK_*.
cdef inline void note_time(Context* x, int kind) noexcept nogil:
    cdef Copies* copies
    if x.facts.syns[kind] == 0:
        x.facts.syns[kind] = 1
        x.facts.syn_first[kind] = x.packet.time_ns
        return
    copies = copies_of(x.core, x.facts)
    if x.facts.syns[kind] == 1:
        copies.syn_count[kind] = 1
        x.facts.syns[kind] = 2
    copies.syn_count[kind] += 1
    copies.syn_last[kind] = x.packet.time_ns

# Counts the different ISNs of SYN-ACKs (exact up to MAX_COPIES of them at a time).
cdef inline void note_variant(Context* x, uint32_t first_isn) noexcept nogil:
    cdef Copies* copies
    cdef uint32_t i, known
    if x.segment.seq == first_isn and (x.facts.copies == 0 or copies_of(x.core, x.facts).variants == 0):
        return
    copies = copies_of(x.core, x.facts)
    if copies.variants == 0:
        copies.variants = 1
        copies.isns[0] = first_isn
    known = copies.variants if copies.variants < MAX_COPIES else MAX_COPIES
    for i in range(known):
        if copies.isns[i] == x.segment.seq:
            return
    copies.isns[copies.variants % MAX_COPIES] = x.segment.seq
    copies.variants += 1

# ------------------------------------------------------------------------------------------------ round trips

# Does this segment acknowledge exactly a SYN of the peer with this ISN, or for the client all of its payload as well?
cdef inline bint acks_syn(Context* x, uint32_t isn) noexcept nogil:
    return (x.segment.ack == isn + 1
            or (x.d != client_end(x.flow) and x.segment.ack == isn + 1 + x.facts.syn_payload))

# Which of the peer's copies this first acknowledgement answers. Returns the quality; OUT copy.
cdef inline int choose_copy(Context* x, EndCopies* copies, Copy* chosen) noexcept nogil:
    cdef uint32_t ts_val = 0, ts_ecr = 0
    cdef bint echo = tcp_timestamps(x.segment, &ts_val, &ts_ecr)
    cdef const Copy* copy
    cdef const Copy* exact = ring_at(&copies.ring, copies.ring.count - 1)
    cdef const Copy* match = NULL
    cdef int i
    cdef int matches = 0
    cdef int64_t same = copies.total - copies.ring.count
    for i in range(copies.ring.count):
        copy = ring_at(&copies.ring, i)
        if acks_syn(x, copy.opening.isn):
            exact = copy
    for i in range(copies.ring.count):
        copy = ring_at(&copies.ring, i)
        if copy.opening.isn != exact.opening.isn:
            continue
        same += 1
        if echo and copy.opening.has & OPT_TIMESTAMPS and copy.opening.ts_val == ts_ecr:
            matches += 1
            match = copy
    if same > 1 and matches == 1:
        chosen[0] = match[0]
        return RQ_MATCHED
    chosen[0] = exact[0]
    return RQ_CLEAN if same == 1 else RQ_AMBIGUOUS

# The sender acknowledges the peer's SYN for the first time: settles which copy it answers, that end's columns, and the
# round trip between the tap and the sender. Before: the accounts do not hold this segment yet.
cdef inline void handshake_answer(Context* x) noexcept nogil:
    cdef int peer = 1 - x.d
    cdef bint by_server = peer == client_end(x.flow)
    cdef Facts* facts = x.facts
    cdef Seq* peer_seq = &x.flow.seq[peer]
    cdef Copies* copies = NULL
    cdef Copy chosen
    cdef int quality = RQ_CLEAN
    cdef int64_t rtt
    if facts.copies:
        copies = copies_of(x.core, facts)
    if copies != NULL and copies.end[peer].total:
        quality = choose_copy(x, &copies.end[peer], &chosen)
        if facts.opening[peer].isn != chosen.opening.isn and not peer_seq.marks & EM_BEYOND:
            peer_seq.nxt = chosen.seq_end
        facts.opening[peer] = chosen.opening
        set_window_shifts(x.flow, facts)
    else:
        chosen.opening = facts.opening[peer]
        if by_server and facts.syns[SK_SYN]:
            chosen.time_ns = facts.syn_first[SK_SYN]
        elif not by_server and facts.syns[SK_SYNACK]:
            chosen.time_ns = facts.syn_first[SK_SYNACK]
        else:
            return                       # the SYN came to the tap after its answer
    if not x.segment.flags & TH_SYN and (
            x.segment.payload_bytes or x.segment.flags & TH_FIN
            or seq_gt(x.segment.ack, chosen.opening.isn + 1 + (facts.syn_payload if by_server else 0))):
        quality = RQ_AMBIGUOUS
    rtt = x.packet.time_ns - chosen.time_ns
    if by_server:
        facts.marks |= FF_SYN_ANSWERED
        if facts.copies:
            copies.used_syn = chosen.time_ns
            copies.has_used_syn = 1
        if peer_seq.marks & EM_BEYOND:
            return
    if rtt < 0:
        return
    if by_server:
        facts.rtt_server = rtt
        facts.quality_server = quality
        facts.marks |= FF_RTT_SERVER
    else:
        facts.rtt_client = rtt
        facts.quality_client = quality
        facts.marks |= FF_RTT_CLIENT
    if quality != RQ_AMBIGUOUS:
        interval_rtt(&x.core.intervals, x.effective, 0 if by_server else 1, rtt)

# Marks the peer's SYN as acknowledged where this segment does so first.
cdef inline void note_syn_acknowledged(Context* x) noexcept nogil:
    cdef Seq* peer = &x.flow.seq[1 - x.d]
    if (peer.marks & (EM_SYN | EM_SYN_ACKED)) != EM_SYN or not x.segment.flags & TH_ACK:
        return
    if not seq_ge(x.segment.ack, x.facts.opening[1 - x.d].isn + 1):
        if x.facts.copies == 0 or copies_of(x.core, x.facts).variants < 2:
            return
        # With several ISNs, any of them may be meant.
        if not acknowledges_some_copy(x, &copies_of(x.core, x.facts).end[1 - x.d].ring):
            return
    handshake_answer(x)
    peer.marks |= EM_SYN_ACKED

cdef inline bint acknowledges_some_copy(Context* x, const Ring* ring) noexcept nogil:
    cdef int i
    for i in range(ring.count):
        if acks_syn(x, ring.copies[i].opening.isn):
            return True
    return False

# ------------------------------------------------------------------------------------------------ completion

cdef inline void count_completed(Context* x) noexcept nogil:
    x.facts.marks |= FF_COMPLETE
    interval_count(&x.core.intervals, x.effective, ICOL_COMPLETED, 1)

# The handshake is complete. An end that sent its FIN before is not ESTABLISHED any more.
cdef inline void complete(Context* x) noexcept nogil:
    cdef int end
    x.flow.marks &= ~<uint8_t>FM_ATTEMPT
    count_completed(x)
    for end in range(2):
        if x.flow.seq[end].marks & EM_FIN:
            move(x, end, EV_SND_FIN)

# Both SYNs are acknowledged.
cdef inline void complete_if_both_acknowledged(Context* x) noexcept nogil:
    if not x.flow.marks & FM_ATTEMPT or x.flow.phase == PH_RESET:
        return
    if x.flow.seq[0].marks & EM_SYN_ACKED and x.flow.seq[1].marks & EM_SYN_ACKED:
        x.facts.handshake_done = x.packet.time_ns
        x.facts.marks |= FF_DONE
        complete(x)

# A segment proves that the handshake was completed out of the tap's sight: both ends are ESTABLISHED before its events.
cdef inline void complete_by_proof(Context* x, bint by_client) noexcept nogil:
    x.flow.state[0] = ST_ESTABLISHED
    x.flow.state[1] = ST_ESTABLISHED
    if by_client:
        x.facts.handshake_done = x.packet.time_ns
        x.facts.marks |= FF_DONE
    complete(x)

# ------------------------------------------------------------------------------------------------ SYN

# A SYN or SYN-ACK that belongs to a record begun without it: its ISN + 1 is where its sender's stream began.
cdef inline bint is_late_opening(const Flow* flow, const Facts* facts, int end, const Segment* segment) noexcept nogil:
    cdef const Opening* own = &facts.opening[end]
    cdef const Opening* peer = &facts.opening[1 - end]
    if flow.seq[end].marks & EM_SYN or flow.marks & FM_BEGAN_WITH_SYN:
        return False
    if own.marks & OM_FIRST_SEQ and segment.seq + 1 == own.isn:
        return True
    return (not segment.flags & TH_ACK and peer.marks & OM_FIRST_ACK and segment.seq + 1 == peer.ts_val)

# A SYN-ACK says what its peer's ISN is where the peer's SYN was not seen.
cdef inline void infer_peer_isn(Context* x) noexcept nogil:
    cdef Opening* peer = &x.facts.opening[1 - x.d]
    if not x.flow.seq[1 - x.d].marks & EM_SYN:
        peer.marks |= OM_FIRST_SEQ | OM_INFERRED
        peer.isn = x.segment.ack

# A SYN or SYN-ACK, seen for the first time, says where its sender's stream begins. Where other segments came first, what
# lies between was not seen yet. Before: the end's Opening still holds what those said.
cdef inline void begin_account(Context* x) noexcept nogil:
    cdef Seq* sender = &x.flow.seq[x.d]
    cdef const Opening* own = &x.facts.opening[x.d]
    cdef uint32_t end = x.segment.seq + 1 + x.segment.payload_bytes
    if x.segment.payload_bytes and not sender.marks & EM_PAYLOAD:
        sender.marks |= EM_PAYLOAD
        x.facts.first_payload[x.d] = x.packet.time_ns
    if not sender.marks & EM_NXT:
        sender.marks |= EM_NXT
        sender.nxt = end
    elif own.marks & (OM_FIRST_SEQ | OM_INFERRED) == OM_FIRST_SEQ and seq_ge(own.isn, end):
        if own.isn != end:
            open_lowest_hole(x, end, own.isn)
    else:
        return
    x.flow.end[x.d].unique_bytes += x.segment.payload_bytes

cdef inline void take_late_opening(Context* x, const Options* options) noexcept nogil:
    cdef bint syn = not x.segment.flags & TH_ACK
    cdef int client = x.d if syn else 1 - x.d
    cdef Seq* sender = &x.flow.seq[x.d]
    if x.flow.marks & FM_NOT_SEEN:
        x.flow.marks &= ~<uint8_t>FM_NOT_SEEN
        x.flow.seq[1 - x.d].marks |= EM_SYN_ACKED    # neither half of the handshake gives a round trip any more
        count_completed(x)
        if x.facts.direction >= DIR_SERVER_PORT:
            x.facts.direction = DIR_SYN if syn else DIR_SYNACK
            x.flow.marks &= ~<uint8_t>FM_CLIENT_IS_1
            if client:
                x.flow.marks |= FM_CLIENT_IS_1
    begin_account(x)
    read_opening(x.segment, options, &x.facts.opening[x.d])
    set_window_shifts(x.flow, x.facts)
    sender.marks |= EM_SYN | EM_SYN_ACKED
    if syn:
        sender.marks |= EM_BARE_SYN
        if x.d == client_end(x.flow):
            note_time(x, SK_SYN)
            note_offer(x.facts, x.segment.flags, options, x.segment.payload_bytes)
            note_answer(x.facts, x.facts.answer)
    else:
        x.facts.answer = answer_of(x.segment.flags, options)
        note_time(x, SK_SYNACK)
        x.facts.marks |= FF_SYNACK | FF_SERVER_SYNACK
        infer_peer_isn(x)

# A SYN or SYN-ACK that comes to the tap after the peer's acknowledgement of it gives no round trip.
cdef inline void note_answered_before(Context* x) noexcept nogil:
    if covers_syn(x.facts, &x.flow.seq[1 - x.d], &x.flow.seq[x.d], x.d):
        x.flow.seq[x.d].marks |= EM_SYN_ACKED

# A SYN that its sender had not sent before: the opener's, or the other end's in a simultaneous or split open.
cdef inline void take_first_syn(Context* x, const Options* options) noexcept nogil:
    cdef Opening opening
    cdef Seq* sender = &x.flow.seq[x.d]
    cdef bint client = x.d == client_end(x.flow)
    begin_account(x)
    read_opening(x.segment, options, &opening)
    remember_copy(x, &opening)
    if client:
        note_time(x, SK_SYN)
        note_offer(x.facts, x.segment.flags, options, x.segment.payload_bytes)
    elif x.facts.marks & FF_SERVER_ACKED:
        x.facts.marks |= FF_SPLIT
    else:
        x.facts.marks |= FF_SIMULTANEOUS
    sender.marks = (sender.marks | EM_SYN | EM_BARE_SYN) & ~<uint16_t>EM_PASSIVE
    note_answered_before(x)
    account_window(x)
    move(x, x.d, EV_SND_SYN)

# An attempt that failed is opened again by its own SYN (SPEC 3.2).
cdef inline void reopen_attempt(Context* x) noexcept nogil:
    cdef Closing* closing = closing_of(x.core, x.facts)
    x.flow.phase = PH_SYN
    x.facts.marks &= ~<uint16_t>(FF_SYNACK | FF_SERVER_DID)
    closing.has &= ~<uint8_t>CM_CLOSED
    closing.packets_after_close = 0

# A SYN with its sender's known ISN.
cdef inline void take_resent_syn(Context* x, const Options* options) noexcept nogil:
    cdef Opening opening
    interval_count(&x.core.intervals, x.effective, ICOL_SYN_RESENDS, 1)
    if x.flow.marks & FM_ATTEMPT and x.flow.phase == PH_RESET:
        reopen_attempt(x)
    read_opening(x.segment, options, &opening)
    remember_copy(x, &opening)
    if x.d == client_end(x.flow):
        note_time(x, SK_SYN)
    if x.flow.marks & FM_ATTEMPT:
        account_window(x)
    x.flow.seq[x.d].marks |= EM_BARE_SYN
    move(x, x.d, EV_SND_SYN)

cdef inline void count_odd_syn(Context* x) noexcept nogil:
    trouble_of(x.core, x.facts).odd_syns += 1

# What an ICMP error said of the SYN is over: it came again, or it was answered.
cdef inline void forget_unreachable(Context* x) noexcept nogil:
    x.flow.seq[0].marks &= ~<uint16_t>EM_UNREACHABLE
    x.flow.seq[1].marks &= ~<uint16_t>EM_UNREACHABLE

# A SYN of this record (border.pxd decided).
cdef inline void take_syn(Context* x) noexcept nogil:
    cdef Options options
    forget_unreachable(x)
    tcp_options(x.segment, &options)
    if is_late_opening(x.flow, x.facts, x.d, x.segment):
        take_late_opening(x, &options)
    elif is_finished(x.flow):
        count_odd_syn(x)
    elif x.flow.seq[x.d].marks & EM_SYN:
        take_resent_syn(x, &options)
    else:
        take_first_syn(x, &options)

# ------------------------------------------------------------------------------------------------ SYN-ACK

# Whether a SYN-ACK answers the peer's SYN: its ACK is ISN + 1, or covers the SYN's payload as well. Where that SYN was
# not seen, an earlier SYN-ACK's ACK is the measure.
cdef inline bint is_acceptable_synack(Context* x) noexcept nogil:
    cdef int peer = 1 - x.d
    cdef const Opening* own = &x.facts.opening[x.d]
    cdef uint32_t isn = x.facts.opening[peer].isn
    if own.marks & OM_INFERRED and x.segment.seq + 1 != own.isn:
        return False                     # the peer has acknowledged another ISN
    if x.flow.seq[x.d].marks & EM_BARE_SYN and x.segment.seq != own.isn:
        return False                     # its own SYN had another ISN
    if x.flow.seq[peer].marks & EM_SYN:
        return acks_syn(x, isn)
    return x.facts.opening[peer].marks & OM_INFERRED and x.segment.ack == isn

cdef inline void take_synack(Context* x) noexcept nogil:
    cdef Options options
    cdef Opening opening
    cdef Seq* sender = &x.flow.seq[x.d]
    cdef bint first = not sender.marks & EM_SYN
    tcp_options(x.segment, &options)
    if x.flow.marks & FM_NOT_SEEN and is_late_opening(x.flow, x.facts, x.d, x.segment):
        take_late_opening(x, &options)
        return
    if not is_acceptable_synack(x):
        count_odd_syn(x)
        return
    read_opening(x.segment, &options, &opening)
    if x.facts.syns[SK_SYNACK]:
        note_variant(x, x.facts.opening[client_end(x.flow) ^ (1 if x.facts.marks & FF_SERVER_SYNACK else 0)].isn)
    elif x.d != client_end(x.flow):
        x.facts.marks |= FF_SERVER_SYNACK
    if first:
        begin_account(x)
    remember_copy(x, &opening)
    note_time(x, SK_SYNACK)
    x.facts.marks |= FF_SYNACK
    if x.flow.phase == PH_SYN:
        x.flow.phase = PH_SYNACK
    if first:
        sender.marks |= EM_SYN
        note_answered_before(x)
    if 1 - x.d == client_end(x.flow):
        x.facts.marks |= FF_SERVER_DID
        if first:
            x.facts.answer = answer_of(x.segment.flags, &options)
        note_answer(x.facts, answer_of(x.segment.flags, &options))
        if x.facts.syn_payload and x.segment.ack == x.facts.opening[1 - x.d].isn + 1 + x.facts.syn_payload:
            x.facts.marks |= FF_DATA_ACCEPTED
            x.facts.fast_open = TFO_DATA_ACCEPTED
    note_syn_acknowledged(x)
    if first or x.flow.marks & FM_ATTEMPT:
        account_window(x)                # one that is resent later says nothing of the window now
    account_ack(x)
    move(x, x.d, EV_SND_SYNACK)
    standing_facts(x)
    complete_if_both_acknowledged(x)
