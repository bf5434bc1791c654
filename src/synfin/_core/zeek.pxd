# Zeek's conn_state and history, by the rules of its TCP analyser (packet_analysis/protocol/tcp, analyzer/protocol/tcp)
# and of its script base/protocols/conn.
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from synfin._core.core cimport *

# Zeek's states of an end.
cdef enum:
    ZE_INACTIVE = 0
    ZE_SYN_SENT = 1
    ZE_SYN_ACK_SENT = 2
    ZE_PARTIAL = 3
    ZE_ESTABLISHED = 4
    ZE_CLOSED = 5
    ZE_RESET = 6

# Others.seen_letters
cdef enum:
    ZL_SYN = 1
    ZL_FIN = 2
    ZL_RST = 4
    ZL_BOTH = 8              # FIN and RST
    ZL_DATA = 16
    ZL_ACK = 32
    ZL_MULTI = 64            # SYN with FIN or RST

# Others.rejected: a history of the originator's SYN and then its RST, with no SYN-ACK, ACK, FIN, gap or odd flags between
cdef enum:
    ZR_START = 0
    ZR_FLIPPED = 1
    ZR_SYN = 2
    ZR_MATCHED = 3
    ZR_FAILED = 4

cdef enum:
    ORIG = 0
    RESP = 1
    MAX_LETTERS = 64
    FAR = 1 << 20            # a SYN or RST further away than this does not say how far its sender has come
    UNACKED = 16384          # bytes without any acknowledgement after which Zeek holds no more
    UNACKED_LATER = 10 << 20  # ... after some acknowledgement

# ------------------------------------------------------------------------------------------------ letters

cdef inline void add_letter(Others* o, int role, char letter) noexcept nogil:
    cdef char written = <char>(letter + 32) if role == RESP and letter != b"^" else letter
    if o.letter_count < MAX_LETTERS:
        o.letters[o.letter_count] = written
        o.letter_count += 1
    if o.rejected == ZR_START and written == b"^":
        o.rejected = ZR_FLIPPED
    elif o.rejected <= ZR_FLIPPED:
        o.rejected = ZR_SYN if written == b"S" else ZR_FAILED
    elif o.rejected == ZR_SYN:
        if written == b"R":
            o.rejected = ZR_MATCHED
        elif (written == b"H" or written == b"A" or written == b"F" or written == b"G" or written == b"I"
                or written == b"Q"):
            o.rejected = ZR_FAILED

# Whether a letter of this kind was there; if not, it is now.
cdef inline bint had_letter(Others* o, int role, uint16_t kind, char letter) noexcept nogil:
    if o.seen_letters[role] & kind:
        return True
    o.seen_letters[role] |= kind
    add_letter(o, role, letter)
    return False

# The 1st, 10th, 100th ... time.
cdef inline void add_scaled(Others* o, int role, uint32_t* times, char letter) noexcept nogil:
    cdef uint32_t power = 1
    if times[0] == 1000000000:
        return
    times[0] += 1
    while power < times[0]:
        power *= 10
    if power == times[0]:
        add_letter(o, role, letter)

cdef inline void note_flags(Others* o, int role, ZeekEnd* end, const Segment* segment, uint64_t seq) noexcept nogil:
    cdef uint16_t flags = segment.flags & (TH_SYN | TH_FIN | TH_RST)
    cdef char letter = b"H" if segment.flags & TH_ACK else b"S"
    if flags == TH_SYN:
        if had_letter(o, role, ZL_SYN, letter) and seq != end.last_syn:
            add_letter(o, role, letter)
        end.last_syn = seq
    elif flags == TH_FIN:
        seq += segment.payload_bytes
        if had_letter(o, role, ZL_FIN, b"F") and seq != end.last_fin:
            add_letter(o, role, b"F")
        end.last_fin = seq
    elif flags == TH_RST:
        if had_letter(o, role, ZL_RST, b"R") and seq != end.last_rst:
            add_letter(o, role, b"R")
        end.last_rst = seq
    elif flags & TH_FIN and flags & TH_RST:
        had_letter(o, role, ZL_BOTH, b"I")
    elif flags:
        had_letter(o, role, ZL_MULTI, b"Q")
    elif segment.payload_bytes:
        had_letter(o, role, ZL_DATA, b"D")
    elif segment.flags & TH_ACK:
        had_letter(o, role, ZL_ACK, b"A")

# ------------------------------------------------------------------------------------------------ sequence numbers

cdef inline void set_start(ZeekEnd* end, uint32_t start, uint32_t last) noexcept nogil:
    end.start = start
    end.ack = start
    end.last = last

# A sequence number counted from the ISN, `near` being the latest one known. below: it lies before the ISN.
cdef inline uint64_t relative(const ZeekEnd* end, uint32_t number, uint32_t near, uint32_t wraps,
                              bint* below) noexcept nogil:
    cdef int32_t delta = <int32_t>(number - near)
    below[0] = False
    if delta < 0 and wraps and number > near:
        wraps -= 1
    elif delta > 0 and number < near:
        wraps += 1
    if wraps == 0:
        delta = <int32_t>(number - end.start)
        below[0] = delta < 0
        return <uint64_t><int64_t>delta
    return (<uint64_t>wraps << 32) + number - end.start

cdef inline uint64_t acked64(const ZeekEnd* end) noexcept nogil:
    return (<uint64_t>end.ack_wraps << 32) + end.ack

cdef inline bint nothing_acked(const ZeekEnd* end) noexcept nogil:
    return acked64(end) == end.start or acked64(end) == <uint64_t>end.start + 1

# Payload bytes by sequence numbers.
cdef inline uint64_t sent_bytes(const ZeekEnd* end) noexcept nogil:
    cdef uint64_t upper = (<uint64_t>end.last_wraps << 32) + end.last
    cdef uint64_t size
    if upper < acked64(end):
        upper = acked64(end)
    size = upper - end.start
    if size:
        size -= 1
    if size and end.fins:
        size -= 1
    return size

cdef inline bint is_empty(const ZeekEnd* end, const ZeekEnd* peer) noexcept nogil:
    if (end.before == ZE_SYN_SENT and end.state == ZE_RESET and peer.state == ZE_INACTIVE
            and not nothing_acked(end)):
        return True
    return sent_bytes(end) == 0

# What the end's packet says of where its sequence numbers begin.
cdef inline void note_start(ZeekEnd* end, const Segment* segment, uint32_t upper) noexcept nogil:
    if end.state == ZE_INACTIVE:
        if segment.flags & TH_SYN:
            set_start(end, segment.seq, upper)
        else:
            set_start(end, segment.seq - 1, segment.seq)
    elif segment.flags & TH_SYN:
        if ((end.state <= ZE_SYN_ACK_SENT and segment.seq != end.start) or end.state == ZE_PARTIAL
                or end.state == ZE_ESTABLISHED or (end.state == ZE_RESET and end.before == ZE_INACTIVE)):
            set_start(end, segment.seq, upper)

# Notes an acknowledgement of this end's bytes. Returns it relative, 0 where it lies before them.
cdef inline uint64_t note_ack(ZeekEnd* end, uint32_t ack, bint rst) noexcept nogil:
    cdef bint below
    cdef uint64_t seq
    cdef int32_t further
    if end.state == ZE_INACTIVE:
        set_start(end, ack - 1, ack - 1)
        return 1
    seq = relative(end, ack, end.ack, end.ack_wraps, &below)
    if below:
        return 0
    further = <int32_t>(ack - end.ack)
    if not rst and further > 0 and not (ack == 0 and further > FAR):
        if ack < end.ack:
            end.ack_wraps += 1
        end.ack = ack
    return seq

# How far the end has come; payload that does not move it counts as resent.
cdef inline void note_upper(Others* o, int role, ZeekEnd* end, const Segment* segment, uint32_t upper) noexcept nogil:
    cdef int32_t delta = <int32_t>(upper - end.last)
    cdef bint only_syn = segment.flags & TH_FIN and end.last == <uint32_t>(end.start + 1)
    if segment.flags & (TH_SYN | TH_RST) and (delta > FAR or delta < -FAR):
        return
    if end.state == ZE_RESET and not only_syn:
        return
    if only_syn or delta > 0:
        if upper < end.last:
            end.last_wraps += 1
        end.last = upper
    elif segment.payload_bytes:
        add_scaled(o, role, &end.resends, b"T")

# ------------------------------------------------------------------------------------------------ gaps

cdef inline void drop_first_pieces(ZeekEnd* end, uint32_t count) noexcept nogil:
    cdef uint32_t i
    end.piece_count -= count
    for i in range(end.piece_count):
        end.pieces[i] = end.pieces[i + count]

# In order up to `upper`, and on through the pieces that join.
cdef inline void deliver(ZeekEnd* end, uint64_t upper) noexcept nogil:
    cdef uint32_t joined = 0
    if upper > end.delivered:
        end.delivered = upper
    while joined < end.piece_count and end.pieces[joined].low <= end.delivered:
        if end.pieces[joined].high > end.delivered:
            end.delivered = end.pieces[joined].high
        joined += 1
    drop_first_pieces(end, joined)

# Before: low lies beyond `delivered`.
cdef inline void add_piece(ZeekEnd* end, uint64_t low, uint64_t high) noexcept nogil:
    cdef uint32_t at = 0, next, i
    while at < end.piece_count and end.pieces[at].high < low:
        at += 1
    next = at
    while next < end.piece_count and end.pieces[next].low <= high:
        low = end.pieces[next].low if end.pieces[next].low < low else low
        high = end.pieces[next].high if end.pieces[next].high > high else high
        next += 1
    if next > at:
        end.pieces[at].low = low
        end.pieces[at].high = high
        for i in range(next, end.piece_count):
            end.pieces[at + 1 + i - next] = end.pieces[i]
        end.piece_count -= next - at - 1
        return
    if end.piece_count == MAX_PIECES:            # the lowest two become one
        if at == 0:
            end.pieces[0].low = low
            return
        if at == 1:
            end.pieces[0].high = high
            return
        end.pieces[0].high = end.pieces[1].high
        for i in range(1, at - 1):
            end.pieces[i] = end.pieces[i + 1]
        at -= 1
    else:
        for i in range(end.piece_count - at):
            end.pieces[end.piece_count - i] = end.pieces[end.piece_count - i - 1]
        end.piece_count += 1
    end.pieces[at].low = low
    end.pieces[at].high = high

# Payload [low, high) that was captured whole.
cdef inline void note_data(ZeekEnd* end, uint64_t low, uint64_t high) noexcept nogil:
    cdef uint64_t held = 0, above = 0
    cdef uint32_t i
    if end.given_up:
        return
    if high > end.trimmed:
        low = end.trimmed if low < end.trimmed else low
        if low > end.delivered:
            add_piece(end, low, high)
        elif high > end.delivered:
            deliver(end, high)
            if nothing_acked(end) and sent_bytes(end) > UNACKED and end.delivered > end.trimmed:
                end.trimmed = end.delivered
    if end.delivered > end.trimmed:
        held = end.delivered - end.trimmed
    for i in range(end.piece_count):
        held += end.pieces[i].high - end.pieces[i].low
    if end.piece_count:
        above = end.pieces[end.piece_count - 1].high - end.delivered
    if (above > UNACKED and nothing_acked(end)) or held > UNACKED_LATER:
        end.piece_count = 0
        end.given_up = 1

cdef inline bint is_clean(const ZeekEnd* end) noexcept nogil:
    return end.state == ZE_ESTABLISHED or (end.state == ZE_CLOSED and end.before == ZE_ESTABLISHED)

# The peer acknowledged this end up to `upto`: what was not seen until then is a gap.
cdef inline void ack_received(Others* o, int role, ZeekEnd* end, const ZeekEnd* peer, uint64_t upto) noexcept nogil:
    cdef bint counts = not end.given_up and is_clean(end) and is_clean(peer)
    if end.fins and upto >= end.fin_end:
        upto = end.fin_end - 1
    if upto <= end.trimmed:
        return
    end.trimmed = upto
    if upto <= end.delivered or (upto <= 2 and o.partial):
        return
    while end.piece_count and end.pieces[0].low < upto:
        if counts:
            add_scaled(o, role, &end.gaps, b"G")
        deliver(end, end.pieces[0].low)
    if upto > end.delivered:
        if counts:
            add_scaled(o, role, &end.gaps, b"G")
        deliver(end, upto)

# ------------------------------------------------------------------------------------------------ states

cdef inline void set_state(ZeekEnd* end, uint8_t state) noexcept nogil:
    if end.state != state:
        end.before = end.state
        end.state = state

# Originator and responder change places.
cdef inline void flip(Others* o) noexcept nogil:
    o.originator = 1 - o.originator
    o.seen_from = <uint8_t>(((o.seen_from & 1) << 1) | (o.seen_from >> 1))
    o.partial = 0
    add_letter(o, ORIG, b"^")

cdef inline void move_inactive(Others* o, int d, const Segment* segment) noexcept nogil:
    cdef ZeekEnd* end = &o.end[d]
    cdef ZeekEnd* peer = &o.end[1 - d]
    cdef bint ack = (segment.flags & TH_ACK) != 0
    if segment.flags & TH_SYN:
        if d == o.originator:
            set_state(end, ZE_SYN_ACK_SENT if ack else ZE_SYN_SENT)
        else:
            if not ack and peer.state == ZE_SYN_ACK_SENT and segment.seq == end.start:
                flip(o)                  # SYN and SYN-ACK passed the tap in the wrong order
                set_state(peer, ZE_ESTABLISHED)
                o.seen_from |= 1 << ORIG
            elif peer.state == ZE_SYN_SENT:
                set_state(peer, ZE_ESTABLISHED)
            set_state(end, ZE_ESTABLISHED)
    if segment.flags & TH_FIN:
        set_state(end, ZE_CLOSED)
    if segment.flags & TH_RST:
        set_state(end, ZE_RESET)
    if end.state != ZE_INACTIVE:
        return
    if d != o.originator and segment.payload_bytes == 0 and peer.state == ZE_SYN_SENT:
        return                           # an ACK of the SYN before the SYN-ACK
    if ack and peer.state == ZE_ESTABLISHED:
        set_state(end, ZE_ESTABLISHED)
        o.partial = 0
        o.seen_from |= 1 << (ORIG if d == o.originator else RESP)
    else:
        set_state(end, ZE_PARTIAL)

cdef inline void move_end(Others* o, int d, const Segment* segment) noexcept nogil:
    cdef ZeekEnd* end = &o.end[d]
    cdef ZeekEnd* peer = &o.end[1 - d]
    if end.state == ZE_INACTIVE:
        move_inactive(o, d, segment)
    elif end.state <= ZE_SYN_ACK_SENT:
        if segment.flags & TH_FIN:
            set_state(end, ZE_CLOSED)
        if segment.flags & TH_RST:
            set_state(end, ZE_RESET)
    elif end.state <= ZE_ESTABLISHED:
        if (segment.flags & (TH_SYN | TH_ACK) == TH_SYN and end.state == ZE_PARTIAL
                and peer.state == ZE_INACTIVE):
            set_state(end, ZE_SYN_SENT)
        if segment.flags & TH_RST:
            set_state(end, ZE_RESET)
        elif segment.flags & TH_FIN:
            set_state(end, ZE_CLOSED)
            if peer.state == ZE_RESET and peer.before == ZE_CLOSED:
                set_state(peer, ZE_CLOSED)
    elif end.state == ZE_CLOSED and segment.flags & TH_RST and peer.state != ZE_CLOSED:
        set_state(end, ZE_RESET)

# conn_state of the script: the first rule that holds counts.
cdef inline int conn_state(const Others* o) noexcept nogil:
    cdef const ZeekEnd* orig = &o.end[o.originator]
    cdef const ZeekEnd* resp = &o.end[1 - o.originator]
    cdef bint orig_silent = orig.state == ZE_INACTIVE or orig.state == ZE_PARTIAL
    cdef bint resp_silent = resp.state == ZE_INACTIVE or resp.state == ZE_PARTIAL
    if resp.state == ZE_RESET:
        if (orig.state == ZE_SYN_SENT or orig.state == ZE_SYN_ACK_SENT
                or (orig.state == ZE_RESET and is_empty(orig, resp) and is_empty(resp, orig))):
            return ZC_REJ
        return ZC_RSTRH if orig_silent else ZC_RSTR
    if orig.state == ZE_RESET:
        if not resp_silent:
            return ZC_RSTO
        return ZC_RSTOS0 if o.rejected == ZR_MATCHED else ZC_OTH
    if orig.state == ZE_CLOSED:
        return ZC_SF if resp.state == ZE_CLOSED else (ZC_SH if resp_silent else ZC_S2)
    if resp.state == ZE_CLOSED:
        return ZC_SHR if orig_silent else ZC_S3
    if orig.state == ZE_SYN_SENT and resp.state == ZE_INACTIVE:
        return ZC_S0
    return ZC_S1 if orig.state == ZE_ESTABLISHED and resp.state == ZE_ESTABLISHED else ZC_OTH

# ------------------------------------------------------------------------------------------------ one packet

cdef inline bint is_zeek_port(const Config* config, uint16_t port) noexcept nogil:
    return (config.zeek_ports[port >> 6] >> (port & 63)) & 1

# The first packet says which end Zeek takes for the originator.
cdef inline void begin_zeek(Others* o, int d, const Config* config, const Segment* segment) noexcept nogil:
    o.originator = <uint8_t>d
    o.end[0].delivered = o.end[0].trimmed = 1
    o.end[1].delivered = o.end[1].trimmed = 1
    if segment.flags & (TH_SYN | TH_ACK) != TH_SYN and is_zeek_port(config, segment.src_port) and (
            not is_zeek_port(config, segment.dst_port) or (
                not segment.flags & TH_SYN and segment.src_port < segment.dst_port)):
        o.originator = <uint8_t>(1 - d)
        add_letter(o, ORIG, b"^")

cdef inline void note_zeek(Others* o, int d, const Segment* segment, bint whole) noexcept nogil:
    cdef int role = ORIG if d == o.originator else RESP
    cdef ZeekEnd* end = &o.end[d]
    cdef ZeekEnd* peer = &o.end[1 - d]
    cdef uint32_t length = ((1 if segment.flags & TH_SYN else 0) + (1 if segment.flags & TH_FIN else 0)
                            + (0 if segment.flags & TH_RST else segment.payload_bytes))
    cdef uint32_t upper = segment.seq + length
    cdef uint64_t seq, acked = 0
    cdef bint below
    if not o.seen_from & (1 << role):
        if role == ORIG:
            o.partial = not segment.flags & TH_SYN or segment.flags & TH_ACK != 0
        elif not o.partial:
            o.partial = not segment.flags & TH_SYN
    note_start(end, segment, upper)
    seq = relative(end, segment.seq, end.last, end.last_wraps, &below)
    note_flags(o, role, end, segment, seq)
    if (segment.window == 0 and not segment.flags & TH_RST and peer.state != ZE_CLOSED
            and end.state != ZE_RESET):
        add_scaled(o, role, &end.zero_windows, b"W")
    if segment.flags & TH_FIN:
        end.fins = 1
        end.fin_end = seq + length
    if segment.flags & TH_ACK:
        acked = note_ack(peer, segment.ack, segment.flags & TH_RST != 0)
    note_upper(o, role, end, segment, upper)
    move_end(o, d, segment)
    role = ORIG if d == o.originator else RESP
    if segment.flags & TH_ACK:
        ack_received(o, 1 - role, peer, end, acked)
    o.seen_from |= 1 << role
    if segment.payload_bytes and whole and not segment.flags & TH_RST and not below:
        seq += 1 if segment.flags & TH_SYN else 0
        note_data(end, seq, seq + segment.payload_bytes)
