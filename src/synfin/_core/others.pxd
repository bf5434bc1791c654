# What other tools would say of the record's packets, for the optional columns: Zeek's view (zeek.pxd), and Wireshark's
# completeness and initial RTT, by the rules of packet-tcp.c. Nothing here is kept or called unless such a column was
# asked for.
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from synfin._core.core cimport *
from synfin._core.zeek cimport begin_zeek, note_zeek

# ------------------------------------------------------------------------------------------------ one packet

# Wireshark takes a time of 0 for unknown. A stream's first packet adds nothing but its SYN, and data with it.
cdef inline void note_wireshark(Others* o, bint first, const Segment* segment, int64_t time_ns) noexcept nogil:
    cdef uint16_t kind = segment.flags & (TH_SYN | TH_ACK)
    if kind == TH_SYN:
        o.syn_time = time_ns
    elif kind == TH_ACK and o.syn_time and not o.first_rtt:
        o.first_rtt = time_ns - o.syn_time
    if first:
        if kind == TH_SYN:
            o.completeness = 9 if segment.payload_bytes else 1
        return
    if kind == (TH_SYN | TH_ACK):
        o.completeness |= 2
    elif kind == TH_ACK:
        o.completeness |= 8 if segment.payload_bytes else 4
    if segment.flags & (TH_FIN | TH_ACK) == TH_FIN | TH_ACK:
        o.completeness |= 16
    if segment.flags & TH_RST:
        o.completeness |= 32

cdef inline void note_packet(Others* o, Context* x) noexcept nogil:
    cdef const Segment* segment = x.segment
    cdef uint64_t payload_at = <uint64_t>(segment.options - x.packet.data) + segment.options_len
    cdef bint first = not o.begun
    if first:
        o.begun = 1
        begin_zeek(o, x.d, &x.core.config, segment)
    note_wireshark(o, first, segment, x.packet.time_ns)
    note_zeek(o, x.d, segment, payload_at + segment.payload_bytes <= x.packet.captured_len)

# A packet of the record. Before: Config.others.
cdef inline void note_others(Context* x) noexcept nogil:
    cdef Others* o = others_of(x.core, x.number)
    note_packet(o, x)
    if o.without:
        note_packet(<Others*>arena_at(&x.core.held_others, o.without), x)

# ------------------------------------------------------------------------------------------------ the held SYN

# The held SYN stays in the record.
cdef inline void keep_held_others(Core* core, Others* o) noexcept nogil:
    if o.without:
        arena_give(&core.held_others, o.without)
        arena_give(&core.held_others, o.next)
    o.without = o.next = 0

# A SYN is held beside the record; `again`: it is a copy of the one held already.
cdef inline void hold_others(Context* x, bint again) noexcept nogil:
    cdef Others* o = others_of(x.core, x.number)
    if not again or not o.without:
        keep_held_others(x.core, o)
        o.without = arena_take(&x.core.held_others)
        o.next = arena_take(&x.core.held_others)
        memcpy(arena_at(&x.core.held_others, o.without), o, sizeof(Others))
    note_packet(o, x)
    note_packet(<Others*>arena_at(&x.core.held_others, o.next), x)

# The held SYN opens a new record: this one goes back to what it is without it. Returns the block that the new one begins
# with, for adopt_others.
cdef inline uint32_t split_others(Core* core, uint32_t number) noexcept nogil:
    cdef Others* o = others_of(core, number)
    cdef uint32_t without = o.without
    cdef uint32_t next = o.next
    memcpy(o, arena_at(&core.held_others, without), sizeof(Others))
    o.without = o.next = 0
    arena_give(&core.held_others, without)
    return next

cdef inline void adopt_others(Core* core, uint32_t number, uint32_t begun) noexcept nogil:
    memcpy(others_of(core, number), arena_at(&core.held_others, begun), sizeof(Others))
    arena_give(&core.held_others, begun)
