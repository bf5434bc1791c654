# Values of a record that Facts holds in a short form, and Wide in full where they do not fit it. What the short form is
# and when it does not do stands here alone.
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from synfin._core.core cimport *
from synfin._core.key cimport flow_id_of

cdef extern from "core.h" nogil:
    const uint64_t USUAL_KINDS

cdef enum:
    INSTANT_BITS = 40
    PLACE_MAX = 32767        # numbers of files and interfaces
    SO_PLAIN = 0x1F          # the kinds 0 to 4, and where the other usual ones stand in ShortOpening.options
    SO_TIMESTAMPS = 0x20     # 8
    SO_MPTCP = 0x40          # 30
    SO_FAST_OPEN = 0x80      # 34

# As peek_extra: without a mark, every value fits.
cdef inline const Wide* peek_wide(Core* core, const Facts* facts) noexcept nogil:
    return <const Wide*>block_at(&core.wides, peek_extra(core, facts).wide, sizeof(Wide))

# The block with `mark` set, whose value the caller enters.
cdef inline Wide* widen(Core* core, Facts* facts, uint16_t mark) noexcept nogil:
    cdef Wide* wide = <Wide*>block_of(&core.wides, &extra_of(core, facts).wide, sizeof(Wide))
    wide.marks |= mark
    facts.choices.has_wide = 1
    return wide

cdef inline bint is_marked(Core* core, const Facts* facts, uint16_t mark) noexcept nogil:
    return peek_wide(core, facts).marks & mark

# Whether a value is in Wide; nearly every record answers from its Facts alone.
cdef inline bint is_wide(Core* core, const Facts* facts, uint16_t mark) noexcept nogil:
    if unlikely(facts.choices.has_wide):
        return is_marked(core, facts, mark)
    return False

# The value fits its short form again.
cdef inline void narrow(Core* core, Facts* facts, uint16_t mark) noexcept nogil:
    if is_wide(core, facts, mark):
        widen(core, facts, 0).marks &= ~mark

# ------------------------------------------------------------------------------------------------ instants

# An instant of the record, by AT_*. Before: it was set.
cdef inline int64_t instant_of(Core* core, const Facts* facts, int at) noexcept nogil:
    if is_wide(core, facts, WM_INSTANT << at):
        return peek_wide(core, facts).instants[at]
    return facts.born + <int64_t>((<uint64_t>facts.instant_high[at] << 32) | facts.instant_low[at])

cdef inline void set_instant(Core* core, Facts* facts, int at, int64_t time_ns) noexcept nogil:
    cdef uint64_t since = <uint64_t>time_ns - <uint64_t>facts.born
    facts.instant_low[at] = <uint32_t>since
    facts.instant_high[at] = <uint8_t>(since >> 32)
    narrow(core, facts, WM_INSTANT << at)
    if unlikely(since >> INSTANT_BITS):
        widen(core, facts, WM_INSTANT << at).instants[at] = time_ns

# The client's first SYN, as a rule the record's first packet. Before: it came; it is entered once.
cdef inline int64_t syn_time_of(Core* core, const Facts* facts) noexcept nogil:
    return peek_wide(core, facts).syn_time if is_wide(core, facts, WM_SYN_TIME) else facts.born

cdef inline void set_syn_time(Core* core, Facts* facts, int64_t time_ns) noexcept nogil:
    if unlikely(time_ns != facts.born):
        widen(core, facts, WM_SYN_TIME).syn_time = time_ns

cdef inline int64_t first_seen_of(Core* core, const Facts* facts) noexcept nogil:
    return peek_wide(core, facts).first_seen if is_wide(core, facts, WM_FIRST_SEEN) else facts.born

# A packet of the record has this timestamp.
cdef inline void note_seen(Core* core, Facts* facts, int64_t time_ns) noexcept nogil:
    if unlikely(time_ns < facts.born) and time_ns < first_seen_of(core, facts):
        widen(core, facts, WM_FIRST_SEEN).first_seen = time_ns

# The client's first SYN, or the first SYN-ACK. Before: it came.
cdef inline int64_t first_time_of(Core* core, const Facts* facts, bint syn) noexcept nogil:
    return syn_time_of(core, facts) if syn else instant_of(core, facts, AT_SYNACK)

# ------------------------------------------------------------------------------------------------ round trips

# What the handshake's instants say. Before: both SYN and SYN-ACK were counted; for the client, AT_DONE is set.
cdef inline int64_t usual_rtt(Core* core, const Facts* facts, bint by_server) noexcept nogil:
    cdef int64_t synack = instant_of(core, facts, AT_SYNACK)
    return synack - syn_time_of(core, facts) if by_server else instant_of(core, facts, AT_DONE) - synack

# Before: there is one (quality_server, quality_client).
cdef inline int64_t rtt_of(Core* core, const Facts* facts, bint by_server) noexcept nogil:
    if is_wide(core, facts, WM_RTT_SERVER if by_server else WM_RTT_CLIENT):
        return peek_wide(core, facts).rtt_server if by_server else peek_wide(core, facts).rtt_client
    return usual_rtt(core, facts, by_server)

cdef inline void widen_rtt(Core* core, Facts* facts, bint by_server, int64_t rtt) noexcept nogil:
    if by_server:
        widen(core, facts, WM_RTT_SERVER).rtt_server = rtt
    else:
        widen(core, facts, WM_RTT_CLIENT).rtt_client = rtt

# Enters the round trip that an answer at `time_ns` completes. The client's answer completes the handshake as a rule, so
# it is AT_DONE before that is known.
cdef inline void set_rtt(Core* core, Facts* facts, bint by_server, int quality, int64_t rtt,
                         int64_t time_ns) noexcept nogil:
    if by_server:
        facts.choices.quality_server = quality
        if unlikely(facts.marks & (FF_SYN_CAME | FF_SYNACK_CAME) != FF_SYN_CAME | FF_SYNACK_CAME
                    or usual_rtt(core, facts, True) != rtt):
            widen_rtt(core, facts, True, rtt)
        return
    facts.choices.quality_client = quality
    if not facts.marks & FF_DONE:
        set_instant(core, facts, AT_DONE, time_ns)
    if unlikely(not facts.marks & FF_SYNACK_CAME or usual_rtt(core, facts, False) != rtt):
        widen_rtt(core, facts, False, rtt)

# The handshake is done.
cdef inline void set_done(Core* core, Facts* facts, int64_t time_ns) noexcept nogil:
    if unlikely(facts.choices.quality_client != RQ_NONE and instant_of(core, facts, AT_DONE) != time_ns):
        widen_rtt(core, facts, False, rtt_of(core, facts, False))
    set_instant(core, facts, AT_DONE, time_ns)
    facts.marks |= FF_DONE

# ------------------------------------------------------------------------------------------------ openings

cdef inline uint8_t short_options(uint64_t kinds) noexcept nogil:
    return <uint8_t>((kinds & SO_PLAIN) | (kinds >> 3 & SO_TIMESTAMPS) | (kinds >> 24 & SO_MPTCP)
                     | (kinds >> 27 & SO_FAST_OPEN))

cdef inline uint64_t kinds_of(uint8_t options) noexcept nogil:
    return ((options & SO_PLAIN) | (<uint64_t>(options & SO_TIMESTAMPS) << 3)
            | (<uint64_t>(options & SO_MPTCP) << 24) | (<uint64_t>(options & SO_FAST_OPEN) << 27))

# OPT_* as the kinds say where each had the length that it should have: they stand in the same order from kind 2 on.
cdef inline uint8_t usual_has(uint8_t options) noexcept nogil:
    return (options >> 2) & 0x1F

cdef inline uint64_t option_kinds_of(Core* core, const Facts* facts, int end) noexcept nogil:
    if is_wide(core, facts, WM_OPTIONS << end):
        return peek_wide(core, facts).option_kinds[end]
    return kinds_of(facts.opening[end].options)

cdef inline uint8_t option_has_of(Core* core, const Facts* facts, int end) noexcept nogil:
    if is_wide(core, facts, WM_OPTIONS << end):
        return peek_wide(core, facts).option_has[end]
    return usual_has(facts.opening[end].options)

# An end's opening in full.
cdef inline void read_back(Core* core, const Facts* facts, int end, Opening* opening) noexcept nogil:
    cdef const ShortOpening* kept = &facts.opening[end]
    opening.option_kinds = option_kinds_of(core, facts, end)
    opening.isn = kept.isn
    opening.ts_val = kept.ts_val
    opening.mss = kept.mss
    opening.window = kept.window
    opening.window_scale = kept.window_scale
    opening.has = option_has_of(core, facts, end)
    opening.ttl = kept.ttl
    opening.marks = kept.marks

# The first sequence number of an end, or its ISN. The first packet's, of which flow_id is made, is not lost by it.
cdef inline void set_isn(Core* core, Facts* facts, int end, uint32_t isn) noexcept nogil:
    cdef ShortOpening* kept = &facts.opening[end]
    if unlikely(facts.choices.first_end == end and kept.isn != isn) and not is_wide(core, facts, WM_FIRST_SEQ):
        widen(core, facts, WM_FIRST_SEQ).first_seq = kept.isn
    kept.isn = isn

cdef inline void keep_opening(Core* core, Facts* facts, int end, const Opening* opening) noexcept nogil:
    cdef ShortOpening* kept = &facts.opening[end]
    cdef Wide* wide
    set_isn(core, facts, end, opening.isn)
    kept.ts_val = opening.ts_val
    kept.mss = opening.mss
    kept.window = opening.window
    kept.window_scale = opening.window_scale
    kept.ttl = opening.ttl
    kept.marks = opening.marks
    kept.options = short_options(opening.option_kinds)
    narrow(core, facts, WM_OPTIONS << end)
    if unlikely(opening.option_kinds & ~USUAL_KINDS or usual_has(kept.options) != opening.has):
        wide = widen(core, facts, WM_OPTIONS << end)
        wide.option_kinds[end] = opening.option_kinds
        wide.option_has[end] = opening.has

# Payload of the client's first SYN, in bytes.
cdef inline uint32_t syn_payload_of(Core* core, const Facts* facts) noexcept nogil:
    return peek_wide(core, facts).syn_payload if unlikely(facts.choices.has_wide) else 0

cdef inline void set_syn_payload(Core* core, Facts* facts, uint32_t payload) noexcept nogil:
    if unlikely(payload or syn_payload_of(core, facts)):
        widen(core, facts, 0).syn_payload = payload

# ------------------------------------------------------------------------------------------------ the first packet

# Before: nothing else was entered.
cdef inline void set_first(Core* core, Facts* facts, int end, int64_t time_ns, uint32_t seq) noexcept nogil:
    facts.born = time_ns
    facts.choices.first_end = end
    facts.opening[end].isn = seq

cdef inline void set_place(Core* core, Facts* facts, int64_t number, int32_t file_id,
                           int32_t interface_id) noexcept nogil:
    cdef Wide* wide
    facts.first_packet = <uint32_t>number
    facts.first_file = <int16_t>file_id
    facts.interface_id = <int16_t>interface_id
    # Packets of an interface have a number that nobody is told.
    if unlikely((file_id >= 0 and facts.first_packet != number) or file_id > PLACE_MAX or interface_id > PLACE_MAX):
        wide = widen(core, facts, WM_PLACE)
        wide.first_packet = number
        wide.first_file = file_id
        wide.interface_id = interface_id

cdef inline int64_t first_packet_of(Core* core, const Facts* facts) noexcept nogil:
    return peek_wide(core, facts).first_packet if is_wide(core, facts, WM_PLACE) else facts.first_packet

cdef inline int32_t first_file_of(Core* core, const Facts* facts) noexcept nogil:
    return peek_wide(core, facts).first_file if is_wide(core, facts, WM_PLACE) else facts.first_file

cdef inline int32_t interface_of(Core* core, const Facts* facts) noexcept nogil:
    return peek_wide(core, facts).interface_id if is_wide(core, facts, WM_PLACE) else facts.interface_id

cdef inline int64_t id_of_record(Core* core, const Key* key, int64_t time_ns, uint32_t seq) noexcept nogil:
    return flow_id_of(key, core.config.key_vlan, core.config.key_tunnel, time_ns, seq)

# `key` is the record's.
cdef inline int64_t flow_id_of_record(Core* core, const Facts* facts, const Key* key) noexcept nogil:
    cdef uint32_t seq = facts.opening[facts.choices.first_end].isn
    if is_wide(core, facts, WM_FIRST_SEQ):
        seq = peek_wide(core, facts).first_seq
    return id_of_record(core, key, facts.born, seq)
