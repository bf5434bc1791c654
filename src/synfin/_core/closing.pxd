# How a connection closes: FIN and RST (SPEC 3.4, 4 "Closing"; RFC 9293 sections 3.5.2, 3.5.3, 3.6).
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from synfin._core.core cimport *
from synfin._core.data cimport open_hole
from synfin._core.machine cimport covers_fin, move
from synfin._core.seq cimport seq_distance, seq_ge, seq_gt, seq_le, seq_lt

# ------------------------------------------------------------------------------------------------ FIN

# The second end's first FIN decides the shape. `acknowledged_before`: the first FIN was, before this segment.
cdef inline void decide_shape(Context* x, Closing* closing, bint acknowledged_before) noexcept nogil:
    cdef int first = 1 - x.d
    cdef int has_ack = CM_FIN_ACK_1 if first else CM_FIN_ACK_0
    cdef bint swapped = closing.has & has_ack and seq_ge(closing.fin_ack[first], closing.fin_seq[x.d] + 1)
    if not closing.has & CM_SHAPE:
        closing.has |= CM_SHAPE
        if swapped:
            closing.shape = CL_FIN_3WAY
            closing.closer = x.d
        elif acknowledged_before:
            closing.shape = CL_FIN_4WAY
        elif x.segment.flags & TH_ACK and seq_ge(x.segment.ack, closing.fin_seq[first] + 1):
            closing.shape = CL_FIN_3WAY
        else:
            closing.shape = CL_FIN_SIMULTANEOUS
    if swapped and x.flow.phase < PH_CLOSED:
        closing.payload_after_fin = 0
        # The tap swapped the two: play them in the order in which they were sent.
        x.flow.state[x.d] = ST_ESTABLISHED
        x.flow.state[first] = ST_ESTABLISHED
        move(x, x.d, EV_SND_FIN)
        move(x, first, EV_SND_ACK_OF_FIN)
        move(x, first, EV_SND_FIN)
        move(x, x.d, EV_RCV_ACK_OF_FIN)
        if covers_fin(x, first):         # also where this segment carries no ACK
            move(x, x.d, EV_SND_ACK_OF_FIN)

# Columns and accounts of a FIN. Before: the segment's other accounts are done (data.pxd).
cdef inline void take_fin(Context* x, bint acknowledged_before) noexcept nogil:
    cdef Closing* closing = closing_of(x.core, x.facts)
    cdef Seq* sender = &x.flow.seq[x.d]
    cdef uint32_t at = x.segment.seq + x.segment.payload_bytes
    closing.fin_count[x.d] += 1
    if seq_lt(at, sender.nxt):
        sender.marks &= ~<uint16_t>EM_TIMED      # Karn
    elif at != sender.nxt:
        open_hole(x, at)
    if seq_gt(at + 1, sender.nxt):
        sender.nxt = at + 1
    if sender.marks & EM_FIN:
        if at == closing.fin_seq[x.d]:
            closing.fin_resent |= 1 << x.d
        return
    sender.marks |= EM_FIN
    closing.fin_seen[x.d] = x.packet.time_ns
    closing.fin_seq[x.d] = at
    if x.segment.flags & TH_ACK:
        closing.fin_ack[x.d] = x.segment.ack
        closing.has |= CM_FIN_ACK_1 if x.d else CM_FIN_ACK_0
    if not closing.has & CM_FIN:
        closing.has |= CM_FIN
        closing.first_fin = x.d
        closing.closer = x.d
    else:
        decide_shape(x, closing, acknowledged_before)

# Marks FINs that are acknowledged now. After: the machine's standing facts agree.
cdef inline void note_fins_acknowledged(Context* x) noexcept nogil:
    cdef int end
    cdef Closing* closing
    for end in range(2):
        if (x.flow.seq[end].marks & (EM_FIN | EM_FIN_ACKED)) == EM_FIN and covers_fin(x, end):
            x.flow.seq[end].marks |= EM_FIN_ACKED
            closing = closing_of(x.core, x.facts)
            if end == closing.first_fin and end != x.d and not (closing.fin_resent >> end) & 1:
                closing.fin_rtt = x.packet.time_ns - closing.fin_seen[end]
                closing.has |= CM_FIN_RTT

# The record's phase after a taken segment of an open connection.
cdef inline void settle_phase(Context* x) noexcept nogil:
    cdef Flow* flow = x.flow
    cdef uint16_t both = flow.seq[0].marks & flow.seq[1].marks
    cdef Closing* closing
    if flow.marks & FM_ATTEMPT or flow.phase >= PH_CLOSED:
        return
    if both & EM_FIN and both & EM_FIN_ACKED:
        flow.phase = PH_CLOSED
        closing = closing_of(x.core, x.facts)
        closing.closed_at = x.packet.time_ns
        closing.has |= CM_CLOSED
        interval_count(&x.core.intervals, x.effective, ICOL_CLOSED_FIN)
    elif both & EM_FIN:
        flow.phase = PH_CLOSING
    elif flow.marks & FM_NOT_SEEN and not both & EM_SEEN:
        flow.phase = PH_ONE_SIDED
    else:
        flow.phase = PH_OPEN

# ------------------------------------------------------------------------------------------------ RST

# RFC 9293 section 3.5.3 and 3.10.7 as SPEC 3.4 narrows it for a tap.
cdef inline bint is_rst_acceptable(Context* x) noexcept nogil:
    cdef int target_end = 1 - x.d
    cdef Seq* sender = &x.flow.seq[x.d]
    cdef Seq* target = &x.flow.seq[target_end]
    cdef uint8_t state = x.flow.state[target_end]
    cdef uint32_t after_syn
    cdef int shift
    cdef int64_t window
    if not target.marks & EM_SEEN:
        return True
    if state == ST_SYN_SENT:
        after_syn = x.facts.opening[target_end].isn + (0 if x.facts.opening[target_end].marks & OM_INFERRED else 1)
        return (x.segment.flags & TH_ACK and seq_ge(x.segment.ack, after_syn)
                and seq_le(x.segment.ack, target.nxt if target.marks & EM_NXT else after_syn))
    if state == ST_LISTEN:
        return False
    if not target.marks & EM_ACK:
        return state != ST_SYN_RECEIVED
    if x.segment.seq == target.ack:
        return True
    if sender.marks & EM_NXT and seq_lt(x.segment.seq, sender.nxt):
        return False
    shift = 0 if x.flow.marks & (FM_UNSCALED_1 if target_end else FM_UNSCALED_0) else x.flow.end[target_end].window_shift
    window = <int64_t>target.window << shift
    return 0 <= seq_distance(target.ack, x.segment.seq) < window

cdef inline void fail_attempt(Context* x) noexcept nogil:
    if x.d != client_end(x.flow) and not x.facts.marks & FF_SYNACK:
        if not x.facts.marks & FF_REFUSED:
            interval_count(&x.core.intervals, x.effective, ICOL_REFUSED)
        x.facts.marks |= FF_REFUSED
    else:
        if not x.facts.marks & FF_ABORTED:
            interval_count(&x.core.intervals, x.effective, ICOL_ABORTED)
        x.facts.marks |= FF_ABORTED

cdef inline void reset_connection(Context* x, Closing* closing) noexcept nogil:
    closing.has |= CM_SHAPE
    closing.shape = CL_RST_AFTER_FIN if closing.has & CM_FIN else CL_RST
    interval_count(&x.core.intervals, x.effective, ICOL_CLOSED_RST)

# Returns whether the RST was accepted.
cdef inline bint take_rst(Context* x) noexcept nogil:
    cdef Closing* closing = closing_of(x.core, x.facts)
    closing.rst_count[x.d] += 1
    if not is_rst_acceptable(x):
        closing.rst_rejected += 1
        return False
    if not closing.has & CM_RST:
        closing.has |= CM_RST
        closing.rst_by = x.d
        closing.rst_seen = x.packet.time_ns
        closing.rst_ttl = x.segment.ttl
    move(x, x.d, EV_SND_RST_PASSIVE if x.flow.seq[x.d].marks & EM_PASSIVE else EV_SND_RST)
    move(x, 1 - x.d, EV_RCV_RST_PASSIVE if x.flow.seq[1 - x.d].marks & EM_PASSIVE else EV_RCV_RST)
    if x.flow.phase >= PH_CLOSED:
        return True
    if x.flow.marks & FM_ATTEMPT:
        fail_attempt(x)
    else:
        reset_connection(x, closing)
    x.flow.phase = PH_RESET
    closing.closed_at = x.packet.time_ns
    closing.has |= CM_CLOSED
    return True
