# The states of both ends: events of one segment, looked up in the matrix that states.py declares (RFC 9293 Figure 5 for
# a passive observer). No state is compared here except to see that TIME-WAIT began or ended.
from synfin._core.core cimport *
from synfin._core.seq cimport seq_ge

# Whether the event would move the end: asked first where the event takes longer to establish.
cdef inline bint heeds(Context* x, int end, int event) noexcept nogil:
    return x.core.config.machine[event * ST_COUNT + x.flow.state[end]] < TO_STAY

cdef inline void move(Context* x, int end, int event) noexcept nogil:
    cdef uint8_t to = x.core.config.machine[event * ST_COUNT + x.flow.state[end]]
    cdef Closing* closing
    if to >= TO_STAY:
        return
    if to == ST_ESTABLISHED and x.flow.seq[end].marks & EM_FIN:
        to = ST_FIN_WAIT_1               # it sent its FIN before: no state with a FIN is ESTABLISHED (segment.pxd)
    if to == ST_TIME_WAIT:
        closing = closing_of(x.core, x.facts)
        if not closing.time_wait:
            closing.time_wait_start = x.packet.time_ns
        closing.time_wait |= 1 << end
    elif x.flow.state[end] == ST_TIME_WAIT:
        closing = closing_of(x.core, x.facts)
        closing.time_wait_end = TWE_RESET
        closing.has |= CM_TIME_WAIT_END
    x.flow.state[end] = to

cdef inline bint covers_syn(const Facts* facts, const Seq* by, const Seq* of, int of_end) noexcept nogil:
    cdef const ShortOpening* opening = &facts.opening[of_end]
    if not by.marks & EM_ACK:
        return False
    if of.marks & EM_SYN:
        return seq_ge(by.ack, opening.isn + 1)
    return opening.marks & OM_INFERRED and seq_ge(by.ack, opening.isn)

# A FIN once acknowledged stays so: then the block that holds its number is not asked.
cdef inline bint covers_fin(Context* x, int of_end) noexcept nogil:
    cdef uint16_t marks = x.flow.seq[of_end].marks
    if not marks & EM_FIN:
        return False
    if marks & EM_FIN_ACKED:
        return True
    return (x.flow.seq[1 - of_end].marks & EM_ACK
            and seq_ge(x.flow.seq[1 - of_end].ack, peek_closing(x.core, x.facts).fin_seq[of_end] + 1))

# The facts that stand after any segment: what the peer's highest acknowledgement covers. Standing, because in a
# simultaneous open the ACK can pass before the state that needs it, and because a later ACK must serve for a lost one.
cdef inline void standing_facts(Context* x) noexcept nogil:
    cdef int i, end
    for i in range(2):
        end = x.d if i == 0 else 1 - x.d
        if heeds(x, end, EV_RCV_ACK_OF_SYN) and covers_syn(x.facts, &x.flow.seq[1 - end], &x.flow.seq[end], end):
            move(x, end, EV_RCV_ACK_OF_SYN)
        if heeds(x, end, EV_RCV_ACK_OF_FIN) and covers_fin(x, end):
            move(x, end, EV_RCV_ACK_OF_FIN)

# A taken segment that is neither SYN, SYN-ACK nor RST acknowledges first, whatever it does then. Before: its accounts are
# up to date, its FIN is not yet entered.
cdef inline void ack_events(Context* x) noexcept nogil:
    if heeds(x, x.d, EV_SND_ACK_OF_SYN) and covers_syn(x.facts, &x.flow.seq[x.d], &x.flow.seq[1 - x.d], 1 - x.d):
        move(x, x.d, EV_SND_ACK_OF_SYN)
    if heeds(x, x.d, EV_SND_ACK_OF_FIN) and covers_fin(x, 1 - x.d):
        move(x, x.d, EV_SND_ACK_OF_FIN)

cdef inline void fin_events(Context* x) noexcept nogil:
    move(x, x.d, EV_SND_FIN)
    if covers_fin(x, x.d):               # the tap showed the acknowledgement before the FIN
        move(x, 1 - x.d, EV_SND_ACK_OF_FIN)
