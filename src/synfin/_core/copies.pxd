# What SYNs and SYN-ACKs say, and the copies of them that came (SPEC 4 "Opening").
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from synfin._core.core cimport *
from synfin._core.wide cimport (
    first_time_of, keep_opening, option_has_of, read_back, set_instant, set_syn_payload, set_syn_time,
)

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
cdef inline int window_shift(Core* core, const Facts* facts, int end) noexcept nogil:
    cdef const ShortOpening* own = &facts.opening[end]
    cdef const ShortOpening* peer = &facts.opening[1 - end]
    if peer.marks & OM_COPY and not option_has_of(core, facts, 1 - end) & OPT_WINDOW_SCALE:
        return 0
    if not own.marks & OM_COPY:
        return WINDOW_SCALE_MAX
    if not option_has_of(core, facts, end) & OPT_WINDOW_SCALE:
        return 0
    return own.window_scale if own.window_scale < WINDOW_SCALE_MAX else WINDOW_SCALE_MAX

cdef inline void set_window_shifts(Core* core, Flow* flow, const Facts* facts) noexcept nogil:
    flow.end[0].window_shift = <uint8_t>window_shift(core, facts, 0)
    flow.end[1].window_shift = <uint8_t>window_shift(core, facts, 1)

# What the client's first SYN offers beyond its end's own columns.
cdef inline void note_offer(Core* core, Facts* facts, uint16_t flags, const Options* options,
                            uint32_t payload) noexcept nogil:
    set_syn_payload(core, facts, payload)
    if flags & TH_ECE and flags & TH_CWR:
        facts.choices.ecn = ECN_ACCECN_OFFERED if flags & TH_AE else ECN_OFFERED
    if options.has & OPT_MPTCP:
        facts.choices.mptcp = MP_OFFERED
    if payload:
        facts.choices.fast_open = TFO_DATA
    elif options.fast_open == 1:
        facts.choices.fast_open = TFO_COOKIE_REQUEST

# What of a SYN-ACK answers an offer.
cdef enum:
    ANSWER_ECN = 7           # the bits (AE, CWR, ECE)
    ANSWER_MPTCP = 8
    ANSWER_CLASSIC_ECN = 16  # RFC 3168 section 6.1.1: ECE without CWR

cdef inline uint8_t answer_of(uint16_t flags, const Options* options) noexcept nogil:
    return ((ANSWER_MPTCP if options.has & OPT_MPTCP else 0) | (4 if flags & TH_AE else 0)
            | (2 if flags & TH_CWR else 0) | (1 if flags & TH_ECE else 0)
            | (ANSWER_CLASSIC_ECN if flags & TH_ECE and not flags & TH_CWR else 0))

# RFC 9768 table 2.
cdef inline bint answers_accecn(uint8_t answer) noexcept nogil:
    cdef int bits = answer & ANSWER_ECN
    return bits == 2 or bits == 3 or bits == 4 or bits == 6

# Several SYN-ACKs' answers as one: of ECN the first that agrees to an offer decides.
cdef inline uint8_t joined_answer(uint8_t earlier, uint8_t later) noexcept nogil:
    cdef bint agreed = answers_accecn(earlier) or earlier & ANSWER_CLASSIC_ECN
    return ((earlier if agreed else later) & ANSWER_ECN) | ((earlier | later) & (ANSWER_MPTCP | ANSWER_CLASSIC_ECN))

cdef inline void note_answer(Facts* facts, uint8_t answer) noexcept nogil:
    cdef Choices* choices = &facts.choices
    if choices.mptcp == MP_OFFERED and answer & ANSWER_MPTCP:
        choices.mptcp = MP_AGREED
    if choices.ecn == ECN_ACCECN_OFFERED and answers_accecn(answer):
        choices.ecn = ECN_ACCECN_AGREED
    elif (choices.ecn == ECN_OFFERED or choices.ecn == ECN_ACCECN_OFFERED) and answer & ANSWER_CLASSIC_ECN:
        choices.ecn = ECN_AGREED

# ------------------------------------------------------------------------------------------------ copies

cdef inline void push_copy(Core* core, EndCopies* copies, int64_t time_ns, const Opening* opening,
                           uint32_t seq_end) noexcept nogil:
    cdef uint32_t place = <uint32_t>copies.total & (MAX_COPIES - 1)
    cdef CopyPair* pair = <CopyPair*>block_of(&core.copy_pairs, &copies.pairs[place >> 1], sizeof(CopyPair))
    cdef Copy* copy = &pair.copies[place & 1]
    copy.time_ns = time_ns
    copy.opening = opening[0]
    copy.seq_end = seq_end
    copies.total += 1

cdef inline int copies_kept(const EndCopies* copies) noexcept nogil:
    return <int>copies.total if copies.total < MAX_COPIES else MAX_COPIES

# The i-th of them, the oldest one first.
cdef inline const Copy* copy_at(Core* core, const EndCopies* copies, int i) noexcept nogil:
    cdef uint32_t place = <uint32_t>(copies.total - copies_kept(copies) + i) & (MAX_COPIES - 1)
    cdef const CopyPair* pair = <const CopyPair*>block_at(&core.copy_pairs, copies.pairs[place >> 1], sizeof(CopyPair))
    return &pair.copies[place & 1]

# Forgets them all; their blocks are free again.
cdef inline void forget_copies(Core* core, EndCopies* copies) noexcept nogil:
    cdef int i
    for i in range(COPY_PAIRS):
        if copies.pairs[i]:
            arena_give(&core.copy_pairs, copies.pairs[i])
    memset(copies, 0, sizeof(EndCopies))

# Remembers a SYN or SYN-ACK of the sender until the peer has answered. The usual single one stands in Facts alone, its
# time as an instant. Before: that is not yet changed by this segment.
cdef inline void remember_copy(Context* x, const Opening* opening) noexcept nogil:
    cdef Opening first
    cdef bint client = x.d == client_end(x.flow)
    cdef bint usual = client == (not x.segment.flags & TH_ACK)
    cdef EndCopies* copies
    if not x.facts.opening[x.d].marks & OM_COPY:
        keep_opening(x.core, x.facts, x.d, opening)
        set_window_shifts(x.core, x.flow, x.facts)
        if usual:
            return
    elif x.flow.seq[x.d].marks & EM_SYN_ACKED:
        return
    copies = &copies_of(x.core, x.facts).end[x.d]
    if copies.total == 0 and x.flow.seq[x.d].marks & EM_SYN:
        read_back(x.core, x.facts, x.d, &first)
        push_copy(x.core, copies, first_time_of(x.core, x.facts, client), &first, first.isn + 1)
    push_copy(x.core, copies, x.packet.time_ns, opening, x.segment.seq + 1 + x.segment.payload_bytes)

# Counts a SYN or SYN-ACK; `kind` is SK_*.
cdef inline void note_time(Context* x, int kind) noexcept nogil:
    cdef Copies* copies
    if not x.facts.marks & (FF_SYN_CAME << kind):
        x.facts.marks |= FF_SYN_CAME << kind
        if kind == SK_SYN:
            set_syn_time(x.core, x.facts, x.packet.time_ns)
        else:
            set_instant(x.core, x.facts, AT_SYNACK, x.packet.time_ns)
        return
    copies = copies_of(x.core, x.facts)
    copies.syn_count[kind] += 1 if copies.syn_count[kind] else 2
    copies.syn_last[kind] = x.packet.time_ns

# Counts the different ISNs of SYN-ACKs (exact up to MAX_COPIES of them at a time).
cdef inline void note_variant(Context* x, uint32_t first_isn) noexcept nogil:
    cdef Copies* copies
    cdef uint32_t i, known
    if x.segment.seq == first_isn and peek_copies(x.core, x.facts).variants == 0:
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
