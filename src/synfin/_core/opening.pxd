# How a connection opens: SYN, SYN-ACK, and the handshake's completion (SPEC 3.2, 4 "Opening"; RFC 9293 sections 3.5 and
# 3.10.7).
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from synfin._core.copies cimport (
    answer_of, joined_answer, note_answer, note_offer, note_time, note_variant, read_opening, remember_copy,
    set_window_shifts,
)
from synfin._core.core cimport *
from synfin._core.data cimport account_ack, account_window, open_lowest_hole
from synfin._core.machine cimport covers_syn, move, standing_facts
from synfin._core.roundtrip cimport acks_syn, enter_handshake, note_syn_acknowledged
from synfin._core.seq cimport seq_ge, seq_gt
from synfin._core.tcp cimport tcp_options
from synfin._core.wide cimport keep_opening, set_done, set_instant, set_isn, syn_payload_of

# ------------------------------------------------------------------------------------------------ completion

cdef inline void count_completed(Context* x) noexcept nogil:
    x.facts.marks |= FF_COMPLETE
    interval_count(&x.core.intervals, x.effective, ICOL_COMPLETED)

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
        set_done(x.core, x.facts, x.packet.time_ns)
        enter_handshake(x.core, x.facts)
        complete(x)

# A segment proves that the handshake was completed out of the tap's sight: both ends are ESTABLISHED before its events.
cdef inline void complete_by_proof(Context* x, bint by_client) noexcept nogil:
    x.flow.state[0] = ST_ESTABLISHED
    x.flow.state[1] = ST_ESTABLISHED
    if by_client:
        set_done(x.core, x.facts, x.packet.time_ns)
    complete(x)

# ------------------------------------------------------------------------------------------------ SYN

# A SYN or SYN-ACK that belongs to a record begun without it: its ISN + 1 is where its sender's stream began.
cdef inline bint is_late_opening(const Flow* flow, const Facts* facts, int end, const Segment* segment) noexcept nogil:
    cdef const ShortOpening* own = &facts.opening[end]
    cdef const ShortOpening* peer = &facts.opening[1 - end]
    if flow.seq[end].marks & EM_SYN or flow.marks & FM_BEGAN_WITH_SYN:
        return False
    if own.marks & OM_FIRST_SEQ and segment.seq + 1 == own.isn:
        return True
    return (not segment.flags & TH_ACK and peer.marks & OM_FIRST_ACK and segment.seq + 1 == peer.ts_val)

# A SYN-ACK says what its peer's ISN is where the peer's SYN was not seen.
cdef inline void infer_peer_isn(Context* x) noexcept nogil:
    if not x.flow.seq[1 - x.d].marks & EM_SYN:
        x.facts.opening[1 - x.d].marks |= OM_FIRST_SEQ | OM_INFERRED
        set_isn(x.core, x.facts, 1 - x.d, x.segment.ack)

# A SYN or SYN-ACK, seen for the first time, says where its sender's stream begins. Where other segments came first, what
# lies between was not seen yet. Before: the end's Opening still holds what those said.
cdef inline void begin_account(Context* x) noexcept nogil:
    cdef Seq* sender = &x.flow.seq[x.d]
    cdef const ShortOpening* own = &x.facts.opening[x.d]
    cdef uint32_t end = x.segment.seq + 1 + x.segment.payload_bytes
    cdef uint32_t fresh = x.segment.payload_bytes
    if x.segment.payload_bytes and not sender.marks & EM_PAYLOAD:
        sender.marks |= EM_PAYLOAD
        set_instant(x.core, x.facts, AT_PAYLOAD_0 + x.d, x.packet.time_ns)
    if not sender.marks & EM_NXT:
        sender.marks |= EM_NXT
        sender.nxt = end
    elif own.marks & (OM_FIRST_SEQ | OM_INFERRED) == OM_FIRST_SEQ and seq_ge(own.isn, end):
        if own.isn != end:
            open_lowest_hole(x, end, own.isn)
    elif seq_gt(end, sender.nxt):        # what came before lies below this stream
        fresh = min(fresh, end - sender.nxt)
        sender.nxt = end
    else:
        return
    x.unique = fresh

cdef inline void take_late_opening(Context* x, const Options* options) noexcept nogil:
    cdef bint syn = not x.segment.flags & TH_ACK
    cdef int client = x.d if syn else 1 - x.d
    cdef Seq* sender = &x.flow.seq[x.d]
    cdef Opening opening
    if x.flow.marks & FM_NOT_SEEN:
        x.flow.marks &= ~<uint8_t>FM_NOT_SEEN
        x.flow.seq[1 - x.d].marks |= EM_SYN_ACKED    # neither half of the handshake gives a round trip any more
        count_completed(x)
        if x.facts.choices.direction >= DIR_SERVER_PORT:
            x.facts.choices.direction = DIR_SYN if syn else DIR_SYNACK
            x.flow.marks &= ~<uint8_t>FM_CLIENT_IS_1
            if client:
                x.flow.marks |= FM_CLIENT_IS_1
    begin_account(x)
    read_opening(x.segment, options, &opening)
    keep_opening(x.core, x.facts, x.d, &opening)
    set_window_shifts(x.core, x.flow, x.facts)
    sender.marks |= EM_SYN | EM_SYN_ACKED
    if syn:
        sender.marks |= EM_BARE_SYN
        if x.d == client_end(x.flow):
            note_time(x, SK_SYN)
            note_offer(x.core, x.facts, x.segment.flags, options, x.segment.payload_bytes)
            note_answer(x.facts, x.facts.choices.answer)
    else:
        x.facts.choices.answer = answer_of(x.segment.flags, options)
        note_time(x, SK_SYNACK)
        x.facts.marks |= FF_SYNACK | FF_SERVER_SYNACK
        infer_peer_isn(x)

# A SYN or SYN-ACK that comes to the tap after the peer's acknowledgement of it gives no round trip.
cdef inline void note_answered_before(Context* x) noexcept nogil:
    if covers_syn(x.facts, &x.flow.seq[1 - x.d], &x.flow.seq[x.d], x.d):
        x.flow.seq[x.d].marks |= EM_SYN_ACKED

# A SYN that its sender had not sent before: the opener's, or the other end's in a simultaneous or split open, which may
# have sent a SYN-ACK with another ISN before an attempt failed.
cdef inline void take_first_syn(Context* x, const Options* options) noexcept nogil:
    cdef Opening opening
    cdef Seq* sender = &x.flow.seq[x.d]
    cdef bint client = x.d == client_end(x.flow)
    if not sender.marks & EM_SYN:
        begin_account(x)
    read_opening(x.segment, options, &opening)
    remember_copy(x, &opening)
    if client:
        note_time(x, SK_SYN)
        note_offer(x.core, x.facts, x.segment.flags, options, x.segment.payload_bytes)
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
    interval_count(&x.core.intervals, x.effective, ICOL_SYN_RESENDS)
    if x.flow.marks & FM_ATTEMPT and x.flow.phase == PH_RESET:
        reopen_attempt(x)
    read_opening(x.segment, options, &opening)
    remember_copy(x, &opening)
    if x.d == client_end(x.flow):
        note_time(x, SK_SYN)
    x.flow.seq[x.d].marks |= EM_BARE_SYN
    if x.flow.marks & FM_ATTEMPT:
        account_window(x)
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
    elif x.flow.seq[x.d].marks & EM_SYN and x.segment.seq == x.facts.opening[x.d].isn:
        take_resent_syn(x, &options)
    else:
        take_first_syn(x, &options)

# ------------------------------------------------------------------------------------------------ SYN-ACK

# Whether a SYN-ACK answers the peer's SYN: its ACK is ISN + 1, or covers the SYN's payload as well. Where that SYN was
# not seen, an earlier SYN-ACK's ACK is the measure.
cdef inline bint is_acceptable_synack(Context* x) noexcept nogil:
    cdef int peer = 1 - x.d
    cdef const ShortOpening* own = &x.facts.opening[x.d]
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
    cdef uint32_t payload
    tcp_options(x.segment, &options)
    if x.flow.marks & FM_NOT_SEEN and is_late_opening(x.flow, x.facts, x.d, x.segment):
        take_late_opening(x, &options)
        return
    if not is_acceptable_synack(x):
        count_odd_syn(x)
        return
    read_opening(x.segment, &options, &opening)
    if x.facts.marks & FF_SYNACK_CAME:
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
        x.facts.choices.answer = joined_answer(x.facts.choices.answer, answer_of(x.segment.flags, &options))
        note_answer(x.facts, x.facts.choices.answer)
        payload = syn_payload_of(x.core, x.facts)
        if payload and x.segment.ack == x.facts.opening[1 - x.d].isn + 1 + payload:
            x.facts.marks |= FF_DATA_ACCEPTED
            x.facts.choices.fast_open = TFO_DATA_ACCEPTED
    note_syn_acknowledged(x)
    if first or x.flow.marks & FM_ATTEMPT:
        account_window(x)                # one that is resent later says nothing of the window now
    account_ack(x)
    move(x, x.d, EV_SND_SYNACK)
    standing_facts(x)
    complete_if_both_acknowledged(x)
