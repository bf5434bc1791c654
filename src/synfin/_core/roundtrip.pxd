# The handshake's two round trips: which copy of a SYN or SYN-ACK an acknowledgement answers (SPEC 4 "Opening").
from libc.stdint cimport int64_t, uint32_t

from synfin._core.copies cimport copies_kept, copy_at, set_window_shifts
from synfin._core.core cimport *
from synfin._core.seq cimport seq_ge, seq_gt
from synfin._core.tcp cimport tcp_timestamps
from synfin._core.wide cimport first_time_of, instant_of, keep_opening, set_rtt, syn_payload_of, syn_time_of

# Does this segment acknowledge exactly a SYN of the peer with this ISN, or for the client all of its payload as well?
cdef inline bint acks_syn(Context* x, uint32_t isn) noexcept nogil:
    return (x.segment.ack == isn + 1
            or (x.d != client_end(x.flow) and x.segment.ack == isn + 1 + syn_payload_of(x.core, x.facts)))

# Which of the peer's copies this first acknowledgement answers. Returns the quality; OUT copy.
cdef inline int choose_copy(Context* x, const EndCopies* copies, Copy* chosen) noexcept nogil:
    cdef uint32_t ts_val = 0, ts_ecr = 0
    cdef bint echo = tcp_timestamps(x.segment, &ts_val, &ts_ecr)
    cdef const Copy* copy
    cdef int kept = copies_kept(copies)
    cdef const Copy* exact = copy_at(x.core, copies, kept - 1)
    cdef const Copy* match = NULL
    cdef int i
    cdef int matches = 0
    cdef int64_t same = copies.total - kept
    for i in range(kept):
        copy = copy_at(x.core, copies, i)
        if acks_syn(x, copy.opening.isn):
            exact = copy
    for i in range(kept):
        copy = copy_at(x.core, copies, i)
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

# Enters `rtt_handshake_ns` (row.pxd) into the run's histogram. To be called when the handshake is done and when a half
# comes after that: the last of the three enters it, once.
cdef inline void enter_handshake(Core* core, const Facts* facts) noexcept nogil:
    cdef const Copies* copies
    cdef int64_t rtt
    if not (facts.marks & FF_DONE and is_sure(facts.choices.quality_server) and is_sure(facts.choices.quality_client)):
        return
    copies = peek_copies(core, facts)
    rtt = instant_of(core, facts, AT_DONE) - (copies.used_syn if copies.has_used_syn else syn_time_of(core, facts))
    if rtt >= 0:
        run_rtt_add(&core.intervals.run_rtt[RTT_HANDSHAKE], rtt)

cdef inline bint is_sure(int quality) noexcept nogil:
    return quality == RQ_CLEAN or quality == RQ_MATCHED

# The sender acknowledges the peer's SYN for the first time: settles which copy it answers, that end's columns, and the
# round trip between the tap and the sender. Before: the accounts do not hold this segment yet.
cdef inline void handshake_answer(Context* x) noexcept nogil:
    cdef int peer = 1 - x.d
    cdef bint by_server = peer == client_end(x.flow)
    cdef Facts* facts = x.facts
    cdef Seq* peer_seq = &x.flow.seq[peer]
    cdef const Copies* copies = peek_copies(x.core, facts)
    cdef Copy chosen
    cdef int quality = RQ_CLEAN
    cdef int64_t rtt
    if copies.end[peer].total:
        quality = choose_copy(x, &copies.end[peer], &chosen)
        if facts.opening[peer].isn != chosen.opening.isn and not peer_seq.marks & EM_BEYOND:
            peer_seq.nxt = chosen.seq_end
        keep_opening(x.core, facts, peer, &chosen.opening)
        set_window_shifts(x.core, x.flow, facts)
    else:
        if not facts.marks & (FF_SYN_CAME if by_server else FF_SYNACK_CAME):
            return                       # the SYN came to the tap after its answer
        chosen.opening.isn = facts.opening[peer].isn
        chosen.time_ns = first_time_of(x.core, facts, by_server)
    if not x.segment.flags & TH_SYN and (
            x.segment.payload_bytes or x.segment.flags & TH_FIN
            or seq_gt(x.segment.ack, chosen.opening.isn + 1 + (syn_payload_of(x.core, facts) if by_server else 0))):
        quality = RQ_AMBIGUOUS
    rtt = x.packet.time_ns - chosen.time_ns
    if by_server:
        facts.marks |= FF_SYN_ANSWERED
        if peek_extra(x.core, facts).copies:
            copies_of(x.core, facts).used_syn = chosen.time_ns
            copies_of(x.core, facts).has_used_syn = 1
        if peer_seq.marks & EM_BEYOND:
            return
    if rtt < 0:
        return
    set_rtt(x.core, facts, by_server, quality, rtt, x.packet.time_ns)
    if quality != RQ_AMBIGUOUS:
        interval_rtt(&x.core.intervals, x.effective, 0 if by_server else 1, rtt)
    if unlikely(facts.marks & FF_DONE):
        enter_handshake(x.core, facts)

# Marks the peer's SYN as acknowledged where this segment does so first.
cdef inline void note_syn_acknowledged(Context* x) noexcept nogil:
    cdef Seq* peer = &x.flow.seq[1 - x.d]
    cdef const Copies* copies
    if (peer.marks & (EM_SYN | EM_SYN_ACKED)) != EM_SYN or not x.segment.flags & TH_ACK:
        return
    if not seq_ge(x.segment.ack, x.facts.opening[1 - x.d].isn + 1):
        copies = peek_copies(x.core, x.facts)
        if copies.variants < 2:
            return
        # With several ISNs, any of them may be meant.
        if not acknowledges_some_copy(x, &copies.end[1 - x.d]):
            return
    handshake_answer(x)
    peer.marks |= EM_SYN_ACKED

cdef inline bint acknowledges_some_copy(Context* x, const EndCopies* copies) noexcept nogil:
    cdef int i
    for i in range(copies_kept(copies)):
        if acks_syn(x, copy_at(x.core, copies, i).opening.isn):
            return True
    return False
