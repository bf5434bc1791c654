# Where one record ends and the next begins on the same two ends (SPEC 3.2): port reuse, old duplicates, and the SYN that
# is held beside a record until something proves that it opened a new connection.
from libc.stdint cimport int64_t, uint32_t

from synfin._core.copies cimport copy_at, forget_copies, note_offer, push_copy, read_opening, set_window_shifts
from synfin._core.core cimport *
from synfin._core.data cimport note_record_vlan, note_vlan
from synfin._core.opening cimport is_late_opening
from synfin._core.others cimport hold_others
from synfin._core.roundtrip cimport acks_syn
from synfin._core.tcp cimport tcp_options
from synfin._core.wide cimport keep_opening, note_seen, set_first, set_instant, set_place

# What a segment means for the borders of the record that its key found.
cdef enum:
    BELONGS = 0
    BEGINS = 1               # it begins a new record
    HOLD = 2                 # a SYN to be held beside this record
    PROVES = 3               # it proves the held SYN, which begins a new record

cdef inline int border_of_syn(Context* x) noexcept nogil:
    cdef Seq* sender = &x.flow.seq[x.d]
    cdef bint known = sender.marks & EM_SYN and x.segment.seq == x.facts.opening[x.d].isn
    if is_late_opening(x.flow, x.facts, x.d, x.segment):
        return BELONGS
    if is_finished(x.flow):
        return BELONGS if known else BEGINS
    if not x.flow.marks & FM_ATTEMPT:
        return BELONGS if known else HOLD
    if known:
        return BELONGS
    if sender.marks & EM_BARE_SYN or x.d == client_end(x.flow) or x.flow.phase == PH_RESET:
        return BEGINS
    return HOLD if x.facts.marks & FF_SYNACK else BELONGS

cdef inline bint proves_held(Context* x) noexcept nogil:
    cdef Held* held
    cdef uint32_t isn
    if not x.flow.marks & FM_HELD:
        return False
    held = held_of(x.core, x.facts)
    isn = held.opening.isn
    if held.end != x.d:
        return ((x.segment.flags & TH_RST or (x.segment.flags & TH_SYN and x.segment.flags & TH_ACK))
                and x.segment.flags & TH_ACK
                and (x.segment.ack == isn + 1 or x.segment.ack == isn + 1 + held.payload))
    if x.segment.flags & TH_RST:
        return False
    if x.segment.flags & TH_SYN and not x.segment.flags & TH_ACK:
        return x.segment.seq == isn and (is_finished(x.flow) or border_of_syn(x) == BEGINS)
    return x.segment.seq == isn + 1

cdef inline int border_of_synack(Context* x) noexcept nogil:
    cdef Seq* sender = &x.flow.seq[x.d]
    cdef Seq* peer = &x.flow.seq[1 - x.d]
    cdef uint32_t isn = x.facts.opening[1 - x.d].isn
    if not is_finished(x.flow):
        return BELONGS
    if x.flow.marks & FM_NOT_SEEN and is_late_opening(x.flow, x.facts, x.d, x.segment):
        return BELONGS
    if sender.marks & EM_SYN and x.segment.seq == x.facts.opening[x.d].isn:
        return BELONGS
    if peer.marks & EM_SYN and acks_syn(x, isn):
        return BELONGS
    if x.facts.opening[1 - x.d].marks & OM_INFERRED and x.segment.ack == isn:
        return BELONGS
    if x.facts.opening[x.d].marks & OM_INFERRED and x.segment.seq + 1 == x.facts.opening[x.d].isn:
        return BELONGS
    return BEGINS

cdef inline int border_of(Context* x) noexcept nogil:
    if proves_held(x):
        return PROVES
    if x.segment.flags & TH_RST or not x.segment.flags & TH_SYN:
        return BELONGS
    if x.segment.flags & TH_ACK:
        return border_of_synack(x)
    return border_of_syn(x)

# ------------------------------------------------------------------------------------------------ the held SYN

# The tags of the held SYN's copies are the record's. They came where they were held, which may have been before the first
# tag that the record noted meanwhile.
cdef inline void release_vlans(Core* core, Facts* facts, const Held* held) noexcept nogil:
    cdef uint64_t word
    cdef uint32_t i, bit
    if held.vlan == NO_VLAN:
        return
    note_record_vlan(core, facts, held.vlan)
    if held.vlan_leads:
        facts.vlan_first = held.vlan
    if held.vlans == 0:
        return
    for i in range(64):
        word = (<Vlans*>arena_at(&core.vlans, held.vlans)).seen[i]
        for bit in range(64 if word else 0):
            if (word >> bit) & 1:
                note_record_vlan(core, facts, <uint16_t>(64 * i + bit))
    arena_give(&core.vlans, held.vlans)

cdef inline void _add_wide(uint32_t* low, uint32_t* high, int64_t amount) noexcept nogil:
    amount += (<int64_t>high[0] << 32) | low[0]
    low[0] = <uint32_t>amount
    high[0] = <uint32_t>(amount >> 32)

cdef inline void count_held(End* end, EndTrouble* trouble, const Held* held) noexcept nogil:
    _add_wide(&end.packets, &trouble.packets_high, held.copies.total)
    _add_wide(&end.ip_bytes, &trouble.ip_bytes_high, held.ip_bytes)
    _add_wide(&end.payload_bytes, &trouble.payload_bytes_high, held.payload_bytes)

# The held SYN was never proven: its copies count in this record, as odd ones.
cdef inline void release_held(Core* core, Flow* flow, Facts* facts) noexcept nogil:
    cdef Held* held
    cdef Trouble* trouble
    if not flow.marks & FM_HELD:
        return
    flow.marks &= ~<uint8_t>FM_HELD
    held = held_of(core, facts)
    trouble = trouble_of(core, facts)
    count_held(&flow.end[held.end], &trouble.end[held.end], held)
    trouble.end[held.end].repeated_bytes += held.payload_bytes
    flow.last_seen = held.largest_ns if held.largest_ns > flow.last_seen else flow.last_seen
    note_seen(core, facts, held.smallest_ns)
    release_vlans(core, facts, held)
    trouble.odd_syns += held.copies.total
    forget_copies(core, &held.copies)

cdef inline void hold_syn(Context* x) noexcept nogil:
    cdef Held* held = held_of(x.core, x.facts)
    cdef Options options
    cdef Opening opening
    cdef bint again = (x.flow.marks & FM_HELD and held.end == x.d
                       and held.opening.isn == x.segment.seq)
    if x.core.config.others:
        hold_others(x, again)
    tcp_options(x.segment, &options)
    read_opening(x.segment, &options, &opening)
    if again:
        interval_count(&x.core.intervals, x.effective, ICOL_SYN_RESENDS)
    else:
        release_held(x.core, x.flow, x.facts)
        x.flow.marks |= FM_HELD
        memset(held, 0, sizeof(Held))
        held.end = x.d
        held.opening = opening
        held.first_ns = held.smallest_ns = held.largest_ns = x.packet.time_ns
        held.first_packet = x.packet.number
        held.first_file = x.packet.file_id
        held.interface_id = x.packet.interface_id
        held.payload = x.segment.payload_bytes
        held.flags = x.segment.flags
        held.fast_open = options.fast_open
        held.vlan = NO_VLAN
        if x.segment.tunnel != NULL:
            held.tunneled = True
            held.tunnel = x.segment.tunnel[0]
    if x.segment.has_vlan:
        held.vlan_leads |= held.vlan == NO_VLAN and x.facts.vlan_first == NO_VLAN
        note_vlan(x.core, &held.vlan, &held.vlans, x.segment.vlan_id)
    held.last_ns = x.packet.time_ns
    held.smallest_ns = x.packet.time_ns if x.packet.time_ns < held.smallest_ns else held.smallest_ns
    held.largest_ns = x.packet.time_ns if x.packet.time_ns > held.largest_ns else held.largest_ns
    held.ip_bytes += x.segment.ip_bytes
    held.payload_bytes += x.segment.payload_bytes
    push_copy(x.core, &held.copies, x.packet.time_ns, &opening, x.segment.seq + 1 + x.segment.payload_bytes)
    x.flow.seq[x.d].marks |= EM_SEEN

# Fills a new record with what the held SYN and its resends were; their copies become its own. Before: x.flow is the new
# record, without a packet.
cdef inline void begin_from_held(Context* x, Held* held) noexcept nogil:
    cdef Core* core = x.core
    cdef Flow* flow = x.flow
    cdef Facts* facts = x.facts
    cdef int d = held.end
    cdef int64_t count = held.copies.total
    cdef Options options
    cdef Copies* copies
    cdef EndTrouble* trouble
    cdef Seq* sender = &flow.seq[d]
    set_first(core, facts, d, held.first_ns, held.opening.isn)
    note_seen(core, facts, held.smallest_ns)
    flow.last_seen = held.largest_ns
    if count == 1:
        flow.end[d].packets = 1
        flow.end[d].ip_bytes = <uint32_t>held.ip_bytes
        flow.end[d].payload_bytes = held.payload
    else:
        trouble = &trouble_of(core, facts).end[d]
        count_held(&flow.end[d], trouble, held)
        trouble.repeated_bytes = held.payload_bytes - held.payload
    set_place(core, facts, held.first_packet, held.first_file, held.interface_id)
    keep_tunnel(core, facts, &held.tunnel if held.tunneled else NULL)
    facts.vlan_first = held.vlan
    if held.vlans:
        extra_of(core, facts).vlans = held.vlans
    keep_opening(core, facts, d, &held.opening)
    facts.marks |= FF_SYN_CAME
    if count == 1:
        forget_copies(core, &held.copies)
    else:
        copies = copies_of(core, facts)
        copies.end[d] = held.copies
        copies.syn_count[SK_SYN] = count
        copies.syn_last[SK_SYN] = held.last_ns
    memset(&options, 0, sizeof(Options))
    options.has = held.opening.has
    options.fast_open = held.fast_open
    note_offer(core, facts, held.flags, &options, held.payload)
    sender.marks = EM_SEEN | EM_SYN | EM_BARE_SYN | EM_NXT | EM_WINDOW
    sender.nxt = facts.opening[d].isn + 1 + held.payload
    sender.window = facts.opening[d].window
    sender.window_max = facts.opening[d].window
    if held.payload:
        sender.marks |= EM_PAYLOAD
        set_instant(core, facts, AT_PAYLOAD_0 + d, held.first_ns)
    flow.marks |= FM_UNSCALED_1 if d else FM_UNSCALED_0
    set_window_shifts(core, flow, facts)
