# What a segment of an open connection does to the accounts: is it acceptable, which bytes are new, what does it
# acknowledge, and how long did that take (SPEC 3.4, 4 "Data"). Every rule is written for a sender `d` and its peer; the
# other direction is the same rule with the ends exchanged.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memmove

from synfin._core.core cimport *
from synfin._core.seq cimport seq_distance, seq_ge, seq_gt, seq_le, seq_lt
from synfin._core.wide cimport note_seen, set_instant, set_isn

cdef extern from "core.h" nogil:
    uint64_t add_square(uint64_t* low, uint16_t* high, uint64_t value)
    const int64_t LONG_RTT_NS

# ------------------------------------------------------------------------------------------------ counting

# Adds to a sum whose low word is `low`; True: the high word is to grow by one.
cdef inline bint add_carries(uint32_t* low, uint32_t amount) noexcept nogil:
    low[0] += amount
    return low[0] < amount

cdef inline void add_packet(Context* x) noexcept nogil:
    cdef End* end = &x.flow.end[x.d]
    if add_carries(&end.packets, 1):
        trouble_of(x.core, x.facts).end[x.d].packets_high += 1
    if add_carries(&end.ip_bytes, x.segment.ip_bytes):
        trouble_of(x.core, x.facts).end[x.d].ip_bytes_high += 1

# What tells a packet from its end's last one. Multiples of the golden ratio: IDs that follow each other never share their
# upper byte.
cdef inline uint8_t packet_hash(uint16_t ip_id, uint32_t seq, uint32_t payload_bytes) noexcept nogil:
    return <uint8_t>((ip_id * <uint32_t>0x9E3779B1 + seq * <uint32_t>0x85EBCA6B + payload_bytes) >> 24)

# A packet that repeats its end's last one, IPv4 ID included, is very likely a capture duplicate: a kernel that sends
# again takes a new ID. Eight bits of hash take one in 256 other packets that move neither SEQ nor ACK for one, too.
# Before: the accounts are those of the end's packet before.
cdef inline void note_suspect(Context* x) noexcept nogil:
    cdef const Segment* segment = x.segment
    cdef const Seq* sender = &x.flow.seq[x.d]
    cdef uint32_t end = segment_end(segment) + (1 if segment.flags & TH_SYN else 0)
    cdef uint8_t hashed = packet_hash(segment.ip_id, segment.seq, segment.payload_bytes)
    if (hashed == x.flow.end[x.d].last_packet and segment.ip_id != 0 and end == sender.nxt and sender.marks & EM_NXT
            and (not segment.flags & TH_ACK or segment.ack == sender.ack)):
        x.core.stats.suspects += 1
    x.flow.end[x.d].last_packet = hashed

# Counts the packet in its record, its end and its interval. No judgement: odd segments count, too.
cdef inline void count_packet(Context* x) noexcept nogil:
    cdef Flow* flow = x.flow
    cdef End* end = &flow.end[x.d]
    cdef Closing* closing
    add_packet(x)
    note_suspect(x)
    if add_carries(&end.payload_bytes, x.segment.payload_bytes):
        trouble_of(x.core, x.facts).end[x.d].payload_bytes_high += 1
    if x.packet.time_ns > flow.last_seen:
        flow.last_seen = x.packet.time_ns
    else:
        note_seen(x.core, x.facts, x.packet.time_ns)
    flow.seq[x.d].marks |= EM_SEEN
    if x.segment.has_vlan and end.vlan != x.segment.vlan_id:
        end.vlan = x.segment.vlan_id
        note_record_vlan(x.core, x.facts, x.segment.vlan_id)
    if flow.phase >= PH_CLOSED:
        closing = closing_of(x.core, x.facts)
        closing.packets_after_close += 1

# Enters a tag: `first` is the first one (NO_VLAN: none so far), `block` the number of the Vlans that are needed for more.
cdef inline void note_vlan(Core* core, uint16_t* first, uint32_t* block, uint16_t vlan) noexcept nogil:
    cdef Vlans* vlans
    if first[0] == NO_VLAN:
        first[0] = vlan
        return
    if block[0] == 0:
        if vlan == first[0]:
            return
        block[0] = arena_take(&core.vlans)
        vlans = <Vlans*>arena_at(&core.vlans, block[0])
        vlans.seen[first[0] >> 6] |= <uint64_t>1 << (first[0] & 63)
        vlans.count = 1
    vlans = <Vlans*>arena_at(&core.vlans, block[0])
    if not (vlans.seen[vlan >> 6] >> (vlan & 63)) & 1:
        vlans.seen[vlan >> 6] |= <uint64_t>1 << (vlan & 63)
        vlans.count += 1

# The same for a record.
cdef inline void note_record_vlan(Core* core, Facts* facts, uint16_t vlan) noexcept nogil:
    if facts.vlan_first == NO_VLAN:
        facts.vlan_first = vlan
    elif vlan != facts.vlan_first:
        note_vlan(core, &facts.vlan_first, &extra_of(core, facts).vlans, vlan)

# ------------------------------------------------------------------------------------------------ acceptance

cdef inline uint32_t segment_end(const Segment* segment) noexcept nogil:
    return segment.seq + segment.payload_bytes + (1 if segment.flags & TH_FIN else 0)

# Whether the segment fits its target's window as the tap knows it (SPEC 3.4; RFC 9293 section 3.10.7.4 first check, made
# wider on both sides because the tap may have lost ACKs). Not for SYN, SYN-ACK and RST.
cdef inline bint is_acceptable(Context* x) noexcept nogil:
    cdef Seq* sender = &x.flow.seq[x.d]
    cdef Seq* target = &x.flow.seq[1 - x.d]
    cdef uint32_t data_end
    cdef int64_t window
    cdef bint odd
    if (target.marks & (EM_ACK | EM_WINDOW | EM_UNJUDGED)) != (EM_ACK | EM_WINDOW):
        return True
    window = target.window_max
    odd = (seq_distance(target.ack, segment_end(x.segment)) < -window
           or seq_distance(target.ack, x.segment.seq) > window)
    if not odd and x.segment.flags & TH_FIN:
        data_end = x.segment.seq + x.segment.payload_bytes
        # A FIN that is acknowledged itself came late: the tap swapped it with the acknowledgement.
        odd = seq_lt(data_end + 1, target.ack) and not (
            sender.marks & EM_FIN and closing_of(x.core, x.facts).fin_seq[x.d] == data_end)
    if not odd:
        return True
    if sender.marks & EM_ODD and trouble_of(x.core, x.facts).end[x.d].odd_end == x.segment.seq:
        target.marks |= EM_UNJUDGED      # the tap lost what lies between: the sender goes on from its last odd one
        return True
    return False

# A segment outside the window: the next one may show that the tap lost what lies between.
cdef inline void count_odd(Context* x) noexcept nogil:
    cdef Trouble* trouble = trouble_of(x.core, x.facts)
    trouble.odd_segments += 1
    trouble.end[x.d].odd_end = segment_end(x.segment)
    x.flow.seq[x.d].marks |= EM_ODD

# ------------------------------------------------------------------------------------------------ sequence account

# Bytes of [low, high) that lie in the end's holes; they are filled.
cdef inline uint32_t fill_holes(EndTrouble* trouble, uint32_t low, uint32_t high) noexcept nogil:
    cdef Hole kept[2 * MAX_HOLES]
    cdef uint32_t count = 0
    cdef uint32_t filled = 0
    cdef uint32_t i, a, b
    for i in range(trouble.hole_count):
        a = trouble.holes[i].low
        b = trouble.holes[i].high
        if seq_le(b, low) or seq_ge(a, high):
            kept[count] = trouble.holes[i]
            count += 1
            continue
        filled += (high if seq_lt(high, b) else b) - (low if seq_gt(low, a) else a)
        if seq_lt(a, low):
            kept[count].low = a
            kept[count].high = low
            count += 1
        if seq_gt(b, high):
            kept[count].low = high
            kept[count].high = b
            count += 1
    keep_highest_holes(trouble, kept, count)
    return filled

cdef inline void keep_highest_holes(EndTrouble* trouble, const Hole* holes, uint32_t count) noexcept nogil:
    cdef uint32_t dropped = count - MAX_HOLES if count > MAX_HOLES else 0
    trouble.hole_count = count - dropped
    memmove(trouble.holes, holes + dropped, sizeof(Hole) * trouble.hole_count)

# NXT rises to `start` over bytes that the tap has not seen. Where the highest hole ends at NXT (an ACK without payload
# came from beyond it), it grows: two that touch are one.
cdef inline void open_hole(Context* x, uint32_t start) noexcept nogil:
    cdef EndTrouble* trouble = &trouble_of(x.core, x.facts).end[x.d]
    cdef Hole holes[MAX_HOLES + 1]
    cdef uint32_t i, count = trouble.hole_count
    for i in range(count):
        holes[i] = trouble.holes[i]
    if count == 0 or holes[count - 1].high != x.flow.seq[x.d].nxt:
        holes[count].low = x.flow.seq[x.d].nxt
        count += 1
    holes[count - 1].high = start
    keep_highest_holes(trouble, holes, count)
    x.flow.seq[x.d].nxt = start

# Nothing was seen from `start` up to where the account began: the lowest hole, and the first to be dropped.
cdef inline void open_lowest_hole(Context* x, uint32_t start, uint32_t end) noexcept nogil:
    cdef EndTrouble* trouble = &trouble_of(x.core, x.facts).end[x.d]
    if trouble.hole_count == MAX_HOLES:
        return
    memmove(trouble.holes + 1, trouble.holes, sizeof(Hole) * trouble.hole_count)
    trouble.holes[0].low = start
    trouble.holes[0].high = end
    trouble.hole_count += 1

# The payload of a taken segment. Before: NXT is known.
cdef inline void account_payload(Context* x) noexcept nogil:
    cdef Seq* sender = &x.flow.seq[x.d]
    cdef uint32_t low = x.segment.seq
    cdef uint32_t high = low + x.segment.payload_bytes
    cdef uint32_t old_end, filled, seen
    cdef EndTrouble* trouble
    if seq_ge(low, sender.nxt):
        if low != sender.nxt:
            open_hole(x, low)
        x.unique = x.segment.payload_bytes
        sender.nxt = high
        if not sender.marks & EM_TIMED:
            sender.marks |= EM_TIMED
            x.facts.rtt[x.d].timed_at = x.packet.time_ns
            x.flow.timed_end[x.d] = segment_end(x.segment)
        return
    sender.marks &= ~<uint16_t>EM_TIMED          # Karn: an acknowledgement could mean either copy
    trouble = &trouble_of(x.core, x.facts).end[x.d]
    old_end = high if seq_lt(high, sender.nxt) else sender.nxt
    filled = fill_holes(trouble, low, old_end)
    seen = old_end - low - filled
    x.unique = filled + (high - old_end)
    if seen:
        trouble.retransmitted_segments += 1
        trouble.retransmitted_bytes += seen
        interval_count(&x.core.intervals, x.effective, ICOL_RETRANSMITTED_SEGMENTS)
    elif high == old_end:
        trouble.out_of_order_segments += 1
    if seq_gt(high, sender.nxt):
        sender.nxt = high

# ------------------------------------------------------------------------------------------------ acknowledgements

# Least and greatest sample below LONG_RTT_NS; `rtt_least` is LONG_RTT_NS before the first.
cdef inline int64_t rtt_least(const Rtt* rtt) noexcept nogil:
    return (<int64_t>rtt.min_high << 32) | rtt.min

cdef inline int64_t rtt_greatest(const Rtt* rtt) noexcept nogil:
    return (<int64_t>rtt.max_high << 32) | rtt.max

cdef inline void _note_long_rtt(EndTrouble* trouble, int64_t sample) noexcept nogil:
    if trouble.long_rtt_min == 0 or sample < trouble.long_rtt_min:
        trouble.long_rtt_min = sample
    if sample > trouble.long_rtt_max:
        trouble.long_rtt_max = sample

# A sample of what an end sent.
cdef inline void rtt_add(Core* core, Facts* facts, int end, int64_t sample) noexcept nogil:
    cdef Rtt* rtt = &facts.rtt[end]
    cdef uint64_t carried
    if sample < 0:
        return
    rtt.total += sample
    if add_carries(&rtt.samples, 1):
        trouble_of(core, facts).end[end].samples_high += 1
    carried = add_square(&rtt.squares, &rtt.squares_high, <uint64_t>sample)
    if unlikely(carried != 0):
        trouble_of(core, facts).end[end].squares_high += carried
    if unlikely(sample >= LONG_RTT_NS):
        _note_long_rtt(&trouble_of(core, facts).end[end], sample)
        return
    if sample < rtt_least(rtt):
        rtt.min = <uint32_t>sample
        rtt.min_high = <uint8_t>(sample >> 32)
    if sample > rtt_greatest(rtt):
        rtt.max = <uint32_t>sample
        rtt.max_high = <uint8_t>(sample >> 32)

# Where the peer's stream begins for the account of acknowledged bytes.
cdef inline uint32_t stream_base(const Facts* facts, const Seq* seq, int end) noexcept nogil:
    return facts.opening[end].isn + 1 if seq.marks & EM_SYN else facts.opening[end].isn

# Raises the sender's highest acknowledgement and takes the RTT sample that it completes. Before: TH_ACK is set.
cdef inline void account_ack(Context* x) noexcept nogil:
    cdef Seq* sender = &x.flow.seq[x.d]
    cdef Seq* peer = &x.flow.seq[1 - x.d]
    cdef uint32_t ack = x.segment.ack
    cdef int64_t rise
    sender.marks &= ~<uint16_t>EM_UNJUDGED
    if not sender.marks & EM_ACK:
        sender.marks |= EM_ACK
        sender.ack = ack
        if peer.marks & EM_NXT or x.facts.opening[1 - x.d].marks & OM_FIRST_SEQ:
            rise = seq_distance(stream_base(x.facts, peer, 1 - x.d), ack)
            x.flow.end[x.d].acked_bytes = <uint32_t>rise
            if rise < 0:
                trouble_of(x.core, x.facts).end[x.d].acked_bytes_high = 0xFFFFFFFF
    else:
        rise = seq_distance(sender.ack, ack)
        if rise > 0:
            sender.ack = ack
            if add_carries(&x.flow.end[x.d].acked_bytes, <uint32_t>rise):
                trouble_of(x.core, x.facts).end[x.d].acked_bytes_high += 1
    if peer.marks & EM_TIMED and seq_ge(ack, x.flow.timed_end[1 - x.d]):
        peer.marks &= ~<uint16_t>EM_TIMED
        rtt_add(x.core, x.facts, 1 - x.d, x.packet.time_ns - x.facts.rtt[1 - x.d].timed_at)

# The window that a taken segment announces. Before: TH_ACK or TH_SYN is set.
cdef inline void account_window(Context* x) noexcept nogil:
    cdef Seq* sender = &x.flow.seq[x.d]
    cdef uint32_t scaled = x.segment.window
    if x.segment.flags & TH_SYN:
        if sender.marks & EM_ACK and not x.segment.flags & TH_ACK:
            return                   # what the end has acknowledged since says it better
        x.flow.marks |= FM_UNSCALED_1 if x.d else FM_UNSCALED_0
    else:
        scaled <<= x.flow.end[x.d].window_shift
        x.flow.marks &= ~<uint8_t>(FM_UNSCALED_1 if x.d else FM_UNSCALED_0)
    sender.window = x.segment.window
    if not sender.marks & EM_WINDOW or scaled > sender.window_max:
        sender.window_max = scaled
    sender.marks |= EM_WINDOW

# ------------------------------------------------------------------------------------------------ one taken segment

# Keep-alive (SPEC 4): SEQ = NXT - 1 and no payload, or one byte when NXT is acknowledged. Before: no SYN, FIN, RST.
cdef inline bint is_keep_alive(Context* x) noexcept nogil:
    cdef Seq* sender = &x.flow.seq[x.d]
    cdef Seq* peer = &x.flow.seq[1 - x.d]
    if not sender.marks & EM_NXT or x.segment.seq + 1 != sender.nxt or x.segment.payload_bytes > 1:
        return False
    return x.segment.payload_bytes == 0 or (peer.marks & EM_ACK and seq_ge(peer.ack, sender.nxt))

# RFC 5681 section 2. Before: a pure ACK, and the sender's account is still that of its last segment.
cdef inline bint is_duplicate_ack(Context* x) noexcept nogil:
    cdef Seq* sender = &x.flow.seq[x.d]
    cdef Seq* peer = &x.flow.seq[1 - x.d]
    return (sender.marks & EM_ACK and peer.marks & EM_NXT and x.segment.ack == sender.ack
            and seq_gt(peer.nxt, sender.ack) and x.segment.window == sender.window)

cdef inline void note_first(Context* x) noexcept nogil:
    cdef Seq* sender = &x.flow.seq[x.d]
    cdef ShortOpening* opening = &x.facts.opening[x.d]
    if not sender.marks & EM_NXT:
        sender.marks |= EM_NXT
        sender.nxt = x.segment.seq
        # After an acknowledgement by the peer, the account of acknowledged bytes has begun there already.
        if not opening.marks & (OM_COPY | OM_FIRST_SEQ):
            opening.marks |= OM_FIRST_SEQ
            set_isn(x.core, x.facts, x.d, x.segment.seq)
    if x.segment.flags & TH_ACK and not opening.marks & (OM_COPY | OM_FIRST_ACK):
        opening.marks |= OM_FIRST_ACK
        opening.ts_val = x.segment.ack

# Accounts of a segment that was taken, FIN excepted (closing.pxd). Not for SYN, SYN-ACK and RST.
cdef inline void take_segment(Context* x) noexcept nogil:
    cdef Seq* sender = &x.flow.seq[x.d]
    cdef const Segment* segment = x.segment
    cdef bint keep_alive = False
    if (sender.marks & EM_NXT) == 0 or not sender.marks & EM_ACK:
        note_first(x)
    if not segment.flags & TH_FIN:
        keep_alive = is_keep_alive(x)
        if keep_alive:
            trouble_of(x.core, x.facts).end[x.d].keep_alives += 1
        elif segment.payload_bytes == 0 and segment.flags & TH_ACK:
            if add_carries(&x.flow.end[x.d].pure_acks, 1):
                trouble_of(x.core, x.facts).end[x.d].pure_acks_high += 1
            if is_duplicate_ack(x):
                trouble_of(x.core, x.facts).end[x.d].duplicate_acks += 1
        if segment.window == 0:
            trouble_of(x.core, x.facts).end[x.d].zero_windows += 1
    if segment.payload_bytes:
        if not sender.marks & EM_PAYLOAD:
            sender.marks |= EM_PAYLOAD
            set_instant(x.core, x.facts, AT_PAYLOAD_0 + x.d, x.packet.time_ns)
        if not keep_alive:
            account_payload(x)
    elif not keep_alive and seq_gt(segment.seq, sender.nxt):
        open_hole(x, segment.seq)
    if segment.flags & TH_ACK:
        account_window(x)
        account_ack(x)
