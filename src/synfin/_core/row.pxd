# A finished record as one row of the flow table (schema.FLOWS): everything that is derived rather than kept is derived
# here, once.
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from synfin._core.core cimport *
from synfin._core.data cimport LONG_RTT_NS, rtt_greatest, rtt_least
from synfin._core.duplicates cimport DUP_KEEP
from synfin._core.sink cimport address_code, are_asked, put_bytes, put_duration, put_int
from synfin._core.wide cimport (
    first_file_of, first_packet_of, first_seen_of, flow_id_of_record, instant_of, interface_of, option_has_of,
    option_kinds_of, rtt_of, syn_payload_of, syn_time_of,
)
from synfin._core.zeek cimport conn_state

cdef extern from "core.h" nogil:
    int64_t exact_stddev(uint64_t count, uint64_t total, uint64_t squares_low, uint64_t squares_high)

cdef enum:
    NOT_ENDED = -1           # in place of an end's reason: the record is live

cdef inline int handshake_outcome(const Flow* flow, const Facts* facts) noexcept nogil:
    if facts.marks & FF_COMPLETE:
        return HS_COMPLETE
    if flow.marks & FM_NOT_SEEN:
        return HS_NOT_SEEN
    if facts.marks & FF_ABORTED:
        return HS_ABORTED
    if facts.marks & FF_REFUSED:
        return HS_REFUSED
    if facts.marks & FF_SYNACK:
        return HS_HALF_OPEN
    return HS_UNREACHABLE if facts.marks & FF_UNREACHABLE else HS_UNANSWERED

cdef inline int close_kind(const Flow* flow, const Closing* closing) noexcept nogil:
    if closing.has & CM_SHAPE:
        return closing.shape
    if not closing.has & CM_FIN:
        return CL_OPEN
    return CL_HALF_CLOSED if flow.seq[closing.first_fin].marks & EM_FIN_ACKED else CL_FIN_UNANSWERED

cdef inline int side_of(const Flow* flow, int end) noexcept nogil:
    return SIDE_CLIENT if end == client_end(flow) else SIDE_SERVER

# ------------------------------------------------------------------------------------------------ groups of columns

cdef inline void put_identity(Sink* s, Core* core, const Key* key, Flow* flow, const Facts* facts,
                              int kind) noexcept nogil:
    cdef int client = client_end(flow)
    cdef int64_t first = first_seen_of(core, facts)
    cdef const Extra* extra = peek_extra(core, facts)
    if s.columns[COL_FLOW_ID].values != NULL:
        put_int(s, COL_FLOW_ID, flow_id_of_record(core, facts, key))
    put_int(s, COL_RECORD, kind)
    put_int(s, COL_FIRST_SEEN, first)
    put_int(s, COL_LAST_SEEN, flow.last_seen)
    put_duration(s, COL_DURATION_NS, flow.last_seen - first)
    put_int(s, COL_IP_VERSION, key.ip_version)
    if s.columns[COL_CLIENT_IP].values != NULL:
        put_int(s, COL_CLIENT_IP, address_code(&s.addresses, key.ip_version, key.addr[client]))
    if s.columns[COL_SERVER_IP].values != NULL:
        put_int(s, COL_SERVER_IP, address_code(&s.addresses, key.ip_version, key.addr[1 - client]))
    if s.columns[COL_COMMUNITY_ID].values != NULL:
        put_community(s, key)
    put_int(s, COL_CLIENT_PORT, key.port[client])
    put_int(s, COL_SERVER_PORT, key.port[1 - client])
    put_int(s, COL_DIRECTION, facts.choices.direction)
    if first_file_of(core, facts) >= 0:
        put_int(s, COL_FIRST_FILE, first_file_of(core, facts))
        put_int(s, COL_FIRST_PACKET, first_packet_of(core, facts))
    if facts.vlan_first != NO_VLAN:
        put_int(s, COL_VLAN_ID, facts.vlan_first)
    put_int(s, COL_VLAN_VARIANTS, (<Vlans*>arena_at(&core.vlans, extra.vlans)).count if extra.vlans
            else (1 if facts.vlan_first != NO_VLAN else 0))
    if extra.tunnel:
        put_tunnel(s, tunnel_of(core, facts))
    if interface_of(core, facts) >= 0:
        put_int(s, COL_INTERFACE, interface_of(core, facts))

cdef inline void put_tunnel(Sink* s, const Tunnel* tunnel) noexcept nogil:
    put_int(s, COL_TUNNEL, tunnel.kind)
    if tunnel.id != NO_TUNNEL_ID:
        put_int(s, COL_TUNNEL_ID, tunnel.id)
    if s.columns[COL_OUTER_SRC_IP].values != NULL:
        put_int(s, COL_OUTER_SRC_IP, address_code(&s.addresses, tunnel.ip_version, tunnel.src))
    if s.columns[COL_OUTER_DST_IP].values != NULL:
        put_int(s, COL_OUTER_DST_IP, address_code(&s.addresses, tunnel.ip_version, tunnel.dst))

# Columns of one end; `base` is the number of its first one (client_isn or server_isn).
cdef inline void put_opening_end(Sink* s, int base, Core* core, const Facts* facts, int end,
                                 bint ipv6) noexcept nogil:
    cdef const ShortOpening* opening = &facts.opening[end]
    cdef uint8_t has = option_has_of(core, facts, end)
    if not opening.marks & OM_COPY:
        return
    put_int(s, base + COL_CLIENT_ISN - COL_CLIENT_ISN, opening.isn)
    if has & OPT_MSS:
        put_int(s, base + COL_CLIENT_MSS - COL_CLIENT_ISN, opening.mss)
    if has & OPT_WINDOW_SCALE:
        put_int(s, base + COL_CLIENT_WINDOW_SCALE - COL_CLIENT_ISN, opening.window_scale)
    put_int(s, base + COL_CLIENT_SYN_WINDOW - COL_CLIENT_ISN, opening.window)
    put_int(s, base + COL_CLIENT_SACK_PERMITTED - COL_CLIENT_ISN, 1 if has & OPT_SACK_PERMITTED else 0)
    put_int(s, base + COL_CLIENT_TIMESTAMPS - COL_CLIENT_ISN, 1 if has & OPT_TIMESTAMPS else 0)
    put_int(s, base + COL_CLIENT_OPTION_KINDS - COL_CLIENT_ISN, <int64_t>option_kinds_of(core, facts, end))
    put_int(s, base + COL_CLIENT_TTL - COL_CLIENT_ISN, opening.ttl)
    if not ipv6:
        put_int(s, base + COL_CLIENT_DONT_FRAGMENT - COL_CLIENT_ISN, opening.marks & OM_DONT_FRAGMENT)

cdef inline int64_t syns_counted(const Facts* facts, const Copies* copies, int kind) noexcept nogil:
    return copies.syn_count[kind] or (1 if facts.marks & (FF_SYN_CAME << kind) else 0)

# The handshake's. `used`: the SYN that they are measured from.
cdef inline void put_round_trips(Sink* s, Core* core, const Facts* facts, int64_t used) noexcept nogil:
    cdef bint server = facts.choices.quality_server != RQ_NONE
    cdef bint client = facts.choices.quality_client != RQ_NONE
    if facts.marks & FF_DONE:
        put_int(s, COL_HANDSHAKE_DONE, instant_of(core, facts, AT_DONE))
        if server and client:
            put_duration(s, COL_RTT_HANDSHAKE_NS, instant_of(core, facts, AT_DONE) - used)
    if server:
        put_int(s, COL_RTT_SERVER_NS, rtt_of(core, facts, True))
    if client:
        put_int(s, COL_RTT_CLIENT_NS, rtt_of(core, facts, False))
    put_int(s, COL_RTT_SERVER_QUALITY, facts.choices.quality_server)
    put_int(s, COL_RTT_CLIENT_QUALITY, facts.choices.quality_client)

cdef inline void put_opening(Sink* s, Core* core, Flow* flow, const Facts* facts) noexcept nogil:
    cdef const Copies* copies = peek_copies(core, facts)
    cdef int client = client_end(flow)
    cdef int64_t syn, last, used = 0
    put_int(s, COL_SIMULTANEOUS_OPEN, 1 if facts.marks & FF_SIMULTANEOUS else 0)
    put_int(s, COL_SPLIT_OPEN, 1 if facts.marks & FF_SPLIT else 0)
    put_int(s, COL_SYN_COUNT, syns_counted(facts, copies, SK_SYN))
    if facts.marks & FF_SYN_CAME:
        syn = used = last = syn_time_of(core, facts)
        if syns_counted(facts, copies, SK_SYN) > 1:
            last = copies.syn_last[SK_SYN]
        if copies.has_used_syn:
            used = copies.used_syn
        elif not facts.marks & FF_SYN_ANSWERED:
            used = last
        put_int(s, COL_SYN_FIRST, syn)
        put_int(s, COL_SYN_LAST, last)
        put_duration(s, COL_SYN_BACKOFF_NS, used - syn)
    put_int(s, COL_SYNACK_COUNT, syns_counted(facts, copies, SK_SYNACK))
    if facts.marks & FF_SYNACK_CAME:
        last = instant_of(core, facts, AT_SYNACK)
        put_int(s, COL_SYNACK_FIRST, last)
        if syns_counted(facts, copies, SK_SYNACK) > 1:
            last = copies.syn_last[SK_SYNACK]
        put_int(s, COL_SYNACK_LAST, last)
    put_int(s, COL_SYNACK_ISN_VARIANTS, copies.variants or (1 if facts.marks & FF_SYNACK_CAME else 0))
    put_round_trips(s, core, facts, used)
    put_opening_end(s, COL_CLIENT_ISN, core, facts, client, flow.marks & FM_IPV6)
    put_opening_end(s, COL_SERVER_ISN, core, facts, 1 - client, flow.marks & FM_IPV6)
    put_int(s, COL_SYN_PAYLOAD_BYTES, syn_payload_of(core, facts))
    put_int(s, COL_ECN, facts.choices.ecn)
    put_int(s, COL_FAST_OPEN, facts.choices.fast_open)
    put_int(s, COL_MPTCP, facts.choices.mptcp)

cdef inline void put_fin_columns(Sink* s, Flow* flow, const Closing* closing, int close, bint shown) noexcept nogil:
    cdef int closer = closing.closer
    cdef int64_t start = closing.closed_at
    if closing.has & CM_FIN:
        put_int(s, COL_CLOSER, SIDE_BOTH if close == CL_FIN_SIMULTANEOUS else side_of(flow, closer))
        if closing.has & CM_FIN_RTT and closer == closing.first_fin:
            put_duration(s, COL_FIN_RTT_NS, closing.fin_rtt)
        if flow.seq[1 - closer].marks & EM_FIN:
            put_duration(s, COL_HALF_CLOSED_NS, closing.fin_seen[1 - closer] - closing.fin_seen[closer])
        if close != CL_RST:
            start = closing.fin_seen[closer]
    if closing.has & CM_CLOSED and shown:
        put_duration(s, COL_CLOSE_DURATION_NS, closing.closed_at - start)

cdef inline void put_closing(Sink* s, Core* core, Flow* flow, Facts* facts, bint shown, int reason) noexcept nogil:
    cdef const Closing* closing = peek_closing(core, facts)
    cdef int close = close_kind(flow, closing)
    cdef int client = client_end(flow)
    if shown:
        put_int(s, COL_CLOSE, close)
    put_fin_columns(s, flow, closing, close, shown)
    if flow.seq[client].marks & EM_FIN:
        put_int(s, COL_CLIENT_FIN, closing.fin_seen[client])
    if flow.seq[1 - client].marks & EM_FIN:
        put_int(s, COL_SERVER_FIN, closing.fin_seen[1 - client])
    put_int(s, COL_CLIENT_FIN_COUNT, closing.fin_count[client])
    put_int(s, COL_SERVER_FIN_COUNT, closing.fin_count[1 - client])
    if closing.has & CM_RST:
        put_int(s, COL_RST_BY, side_of(flow, closing.rst_by))
        put_int(s, COL_RST_SEEN, closing.rst_seen)
        put_int(s, COL_RST_TTL, closing.rst_ttl)
    put_int(s, COL_CLIENT_RST_COUNT, closing.rst_count[client])
    put_int(s, COL_SERVER_RST_COUNT, closing.rst_count[1 - client])
    put_int(s, COL_RST_REJECTED, closing.rst_rejected)
    put_int(s, COL_CLIENT_STATE, flow.state[client])
    put_int(s, COL_SERVER_STATE, flow.state[1 - client])
    if closing.time_wait:
        put_int(s, COL_TIME_WAIT_SIDE, SIDE_BOTH if closing.time_wait == 3 else side_of(flow, closing.time_wait >> 1))
        put_int(s, COL_TIME_WAIT_START, closing.time_wait_start)
    if closing.has & CM_TIME_WAIT_END:
        put_int(s, COL_TIME_WAIT_END, closing.time_wait_end)
    put_int(s, COL_PAYLOAD_BYTES_AFTER_FIN, closing.payload_after_fin)
    put_int(s, COL_PACKETS_AFTER_CLOSE, closing.packets_after_close)
    if reason != NOT_ENDED:
        put_int(s, COL_END_REASON, reason)

# A sum of two words.
cdef inline int64_t two_words(uint32_t low, uint32_t high) noexcept nogil:
    return <int64_t>((<uint64_t>high << 32) | low)

# Samples of what an end sent: between the tap and its peer.
cdef inline void put_rtt(Sink* s, int base, const Rtt* rtt, const EndTrouble* trouble) noexcept nogil:
    cdef int64_t samples = two_words(rtt.samples, trouble.samples_high)
    cdef int64_t least = rtt_least(rtt)
    put_int(s, base + COL_CLIENT_RTT_SAMPLES, samples)
    if samples == 0:
        return
    put_int(s, base + COL_CLIENT_RTT_MIN_NS, least if least != LONG_RTT_NS else trouble.long_rtt_min)
    put_int(s, base + COL_CLIENT_RTT_MEAN_NS, rtt.total // samples)
    put_int(s, base + COL_CLIENT_RTT_MAX_NS, trouble.long_rtt_max if trouble.long_rtt_min else rtt_greatest(rtt))
    put_int(s, base + COL_CLIENT_RTT_STDDEV_NS,
            exact_stddev(<uint64_t>samples, <uint64_t>rtt.total, rtt.squares,
                         (trouble.squares_high << 16) | rtt.squares_high))

cdef inline void put_data_end(Sink* s, int base, Core* core, Flow* flow, const Facts* facts,
                              int end) noexcept nogil:
    cdef const Trouble* troubles = peek_trouble(core, facts)
    cdef const EndTrouble* trouble = &troubles.end[end]
    cdef const End* own = &flow.end[end]
    cdef int64_t payload = two_words(own.payload_bytes, trouble.payload_bytes_high)
    cdef int64_t unique = payload - trouble.repeated_bytes
    cdef int64_t acked = two_words(flow.end[1 - end].acked_bytes, troubles.end[1 - end].acked_bytes_high)
    cdef int64_t missing = acked - (1 if flow.seq[end].marks & EM_FIN_ACKED else 0) - unique
    base -= COL_CLIENT_PACKETS
    put_int(s, base + COL_CLIENT_PACKETS, two_words(own.packets, trouble.packets_high))
    put_int(s, base + COL_CLIENT_IP_BYTES, two_words(own.ip_bytes, trouble.ip_bytes_high))
    put_int(s, base + COL_CLIENT_PAYLOAD_BYTES, payload)
    put_int(s, base + COL_CLIENT_UNIQUE_BYTES, unique)
    put_int(s, base + COL_CLIENT_PURE_ACKS, two_words(own.pure_acks, trouble.pure_acks_high))
    put_int(s, base + COL_CLIENT_RETRANSMITTED_SEGMENTS, trouble.retransmitted_segments)
    put_int(s, base + COL_CLIENT_RETRANSMITTED_BYTES, trouble.retransmitted_bytes)
    put_int(s, base + COL_CLIENT_OUT_OF_ORDER_SEGMENTS, trouble.out_of_order_segments)
    put_int(s, base + COL_CLIENT_MISSING_BYTES, missing if missing > 0 else 0)
    put_int(s, base + COL_CLIENT_KEEP_ALIVES, trouble.keep_alives)
    put_int(s, base + COL_CLIENT_ZERO_WINDOWS, trouble.zero_windows)
    put_int(s, base + COL_CLIENT_DUPLICATE_ACKS, trouble.duplicate_acks)
    if core.config.duplicates != DUP_KEEP:
        put_int(s, base + COL_CLIENT_CAPTURE_DUPLICATES, trouble.capture_duplicates)
    if flow.seq[end].marks & EM_PAYLOAD:
        put_int(s, base + COL_CLIENT_FIRST_PAYLOAD, instant_of(core, facts, AT_PAYLOAD_0 + end))
    put_rtt(s, base, &facts.rtt[1 - end], &troubles.end[1 - end])

cdef inline void put_trouble(Sink* s, Core* core, Facts* facts) noexcept nogil:
    cdef const Trouble* trouble = peek_trouble(core, facts)
    put_int(s, COL_ODD_SYNS, trouble.odd_syns)
    put_int(s, COL_ODD_SEGMENTS, trouble.odd_segments)
    put_int(s, COL_ICMP_ERRORS, trouble.icmp_errors)
    if facts.marks & FF_UNREACHABLE:
        put_int(s, COL_ICMP_TYPE, trouble.icmp_type)
        put_int(s, COL_ICMP_CODE, trouble.icmp_code)

# ------------------------------------------------------------------------------------------------ optional columns

# What is hashed for Community ID version 1 with seed 0; block.pyx does that.
cdef inline void put_community(Sink* s, const Key* key) noexcept nogil:
    cdef uint8_t data[40]
    cdef int size = 4 if key.ip_version == 4 else 16
    cdef int order = memcmp(key.addr[0], key.addr[1], size)
    cdef int low = 1 if order > 0 or (order == 0 and key.port[0] > key.port[1]) else 0
    data[0] = data[1] = 0
    memcpy(data + 2, key.addr[low], size)
    memcpy(data + 2 + size, key.addr[1 - low], size)
    data[2 + 2 * size] = 6               # TCP
    data[3 + 2 * size] = 0
    data[4 + 2 * size] = key.port[low] >> 8
    data[5 + 2 * size] = key.port[low] & 255
    data[6 + 2 * size] = key.port[1 - low] >> 8
    data[7 + 2 * size] = key.port[1 - low] & 255
    put_bytes(s, COL_COMMUNITY_ID, data, 8 + 2 * size)

cdef inline void put_others(Sink* s, const Others* o) noexcept nogil:
    put_int(s, COL_ZEEK_CONN_STATE, conn_state(o))
    put_bytes(s, COL_ZEEK_HISTORY, <const uint8_t*>o.letters, o.letter_count)
    put_int(s, COL_WIRESHARK_COMPLETENESS, o.completeness)
    if o.first_rtt > 0:
        put_int(s, COL_WIRESHARK_INITIAL_RTT_NS, o.first_rtt)

# ------------------------------------------------------------------------------------------------ the row

# Writes the record as the sink's next row. `key` is the record's; `handshake` and `reason` are what the row says. Before:
# the sink has room for one row.
cdef inline void put_columns(Sink* s, Core* core, uint32_t number, const Key* key, int kind, int handshake,
                             int reason) noexcept nogil:
    cdef Flow* flow = flow_of(core, number)
    cdef Facts* facts = facts_of(core, number)
    cdef int client = client_end(flow)
    put_identity(s, core, key, flow, facts, kind)
    put_int(s, COL_HANDSHAKE, handshake)
    if are_asked(s, COL_HANDSHAKE + 1, COL_CLOSE):
        put_opening(s, core, flow, facts)
        put_trouble(s, core, facts)
    if are_asked(s, COL_CLOSE, COL_CLIENT_PACKETS):
        put_closing(s, core, flow, facts, handshake == HS_COMPLETE or handshake == HS_NOT_SEEN, reason)
    if are_asked(s, COL_CLIENT_PACKETS, COL_SERVER_PACKETS):
        put_data_end(s, COL_CLIENT_PACKETS, core, flow, facts, client)
    if are_asked(s, COL_SERVER_PACKETS, COL_FIRST_RESPONSE_NS):
        put_data_end(s, COL_SERVER_PACKETS, core, flow, facts, 1 - client)
    if flow.seq[0].marks & flow.seq[1].marks & EM_PAYLOAD:
        put_duration(s, COL_FIRST_RESPONSE_NS, instant_of(core, facts, AT_PAYLOAD_0 + 1 - client)
                     - instant_of(core, facts, AT_PAYLOAD_0 + client))
    if core.config.others:
        put_others(s, others_of(core, number))
    s.rows += 1

# An attempt that nothing has decided yet, in a row that does not wait for its timeout.
cdef inline int undecided(int handshake) noexcept nogil:
    return HS_PENDING if handshake == HS_HALF_OPEN or handshake == HS_UNANSWERED else handshake

# A live record as it stands (SPEC 7, interim rows): nothing is counted, nothing is said of its end. A SYN held beside it
# is not in the row yet.
cdef inline void put_interim_row(Sink* s, Core* core, uint32_t number) noexcept nogil:
    cdef int handshake = undecided(handshake_outcome(flow_of(core, number), facts_of(core, number)))
    cdef Key key
    flow_key(core, number, &key)
    put_columns(s, core, number, &key, REC_INTERIM, handshake, NOT_ENDED)

# The final row of a record, which is counted; `key` is the record's. `reason` stands where it was neither closed nor
# reset.
cdef inline void put_row(Core* core, uint32_t number, const Key* key, int reason) noexcept nogil:
    cdef Flow* flow = flow_of(core, number)
    cdef Facts* facts = facts_of(core, number)
    cdef const Closing* closing = peek_closing(core, facts)
    cdef int handshake = handshake_outcome(flow, facts)
    cdef int close = close_kind(flow, closing)
    if flow.phase == PH_CLOSED:
        reason = END_FIN
    elif flow.phase == PH_RESET:
        reason = END_RST
    if reason == END_END_OF_INPUT or reason == END_EVICTED:
        handshake = undecided(handshake)
    put_columns(&core.rows, core, number, key, REC_FINAL, handshake, reason)
    core.stats.records += 1
    core.stats.packets_in_records += row_packets(core, flow, facts)
    core.stats.handshakes[handshake] += 1
    core.stats.end_reasons[reason] += 1
    if handshake == HS_COMPLETE or handshake == HS_NOT_SEEN:
        core.stats.closes[close] += 1
    if closing.has & CM_FIN:
        core.stats.closers[SIDE_BOTH if close == CL_FIN_SIMULTANEOUS else side_of(flow, closing.closer)] += 1

cdef inline int64_t row_packets(Core* core, Flow* flow, Facts* facts) noexcept nogil:
    cdef const Trouble* trouble = peek_trouble(core, facts)
    return (<int64_t>flow.end[0].packets + flow.end[1].packets
            + ((<int64_t>trouble.end[0].packets_high + trouble.end[1].packets_high) << 32))
