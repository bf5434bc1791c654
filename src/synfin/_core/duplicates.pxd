# Capture duplicates (SPEC 2): a packet that the capture holds twice, because the capture point saw it twice. What was
# seen of the last tenth of a second stands in a ring in the order of arrival, found by a table of fingerprints.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy

from synfin._core.key cimport MIX_A, MIX_B, MIX_C, NO_VLAN, mix64
from synfin._core.types cimport PacketRef, Segment

cdef extern from "core.h" nogil:
    void prefetch_write(const void* p)
    void* zeroed_block(size_t size)

# Settings.duplicates, in the order of its choices.
cdef enum:
    DUP_KEEP = 0
    DUP_COUNT = 1
    DUP_DROP = 2

cdef enum:
    COPY_WINDOW_NS = 50000000    # between a copy and its first, either way
    COPY_MEMORY_NS = 100000000   # of the input clock, from the first's arrival: the window, and as much disorder
    FIRSTS_LEAST = 1024
    FIRSTS_MOST = 1 << 21        # packets that are remembered at most, whatever the clock says

# The first of what may become several copies.
cdef struct First:
    uint64_t fingerprint
    int64_t time_ns
    int64_t clock_ns         # the input clock at its arrival
    int32_t interface_id
    uint16_t vlan            # outermost tag, NO_VLAN without one
    uint8_t tap
    uint8_t ttl

# Open addressing with linear probing. A slot holds the latest place in the ring with its fingerprint and, so that neither
# a probe nor a removal need look there, the fingerprint's lower half, which also says where the probe begins.
cdef struct FirstSlot:
    uint32_t tag
    uint32_t place           # 1 + place in the ring; 0: empty

cdef struct Firsts:
    First* ring
    FirstSlot* slots         # twice as many as the ring has places
    uint64_t head            # oldest; counts up for ever, its place is head & mask
    uint64_t tail            # where the next one goes
    uint64_t mask            # of the ring
    uint64_t last            # number (as `tail` counts) of the first that the last packet was, or of which it was a copy

# ------------------------------------------------------------------------------------------------ fingerprint

cdef inline uint64_t load64(const uint8_t* p) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, p, 8)
    return word

cdef inline uint32_t load32(const uint8_t* p) noexcept nogil:
    cdef uint32_t word
    memcpy(&word, p, 4)
    return word

# `size` bytes and their number.
cdef inline uint64_t mix_bytes(uint64_t h, const uint8_t* p, uint64_t size) noexcept nogil:
    cdef uint64_t word
    h ^= size
    while size >= 8:
        h = mix64(h ^ load64(p), MIX_B)
        p += 8
        size -= 8
    if size:
        word = 0
        memcpy(&word, p, size)
        h = mix64(h ^ word, MIX_C)
    return h

# What copies have in common: the IP header without TTL (hop limit) and checksum, whatever extension headers or options
# follow it, and the TCP header without its checksum. Options that the capture cut are left out: with a VLAN tag more of
# them is cut. 64 seeded bits: two packets
# are confused once in 2^64 pairs, and nobody can aim at it.
cdef inline uint64_t fingerprint(const Segment* segment, uint64_t seed) noexcept nogil:
    cdef const uint8_t* ip = segment.ip
    cdef const uint8_t* tcp = segment.options - 20
    cdef const uint8_t* rest
    cdef uint64_t h
    if segment.ip_version == 4:      # bytes 8, 10 and 11 are left out
        h = mix64(load64(ip) ^ seed, ((<uint64_t>load32(ip + 12) << 32) | load32(ip + 16)) ^ MIX_A) ^ ip[9]
        rest = ip + 20
    else:                            # byte 7 is left out
        h = mix64(load32(ip) ^ seed, ((<uint64_t>ip[4] << 16) | (<uint64_t>ip[5] << 8) | ip[6]) ^ MIX_A)
        h = mix64(load64(ip + 8) ^ h, load64(ip + 16) ^ MIX_B)
        h = mix64(load64(ip + 24) ^ h, load64(ip + 32) ^ MIX_C)
        rest = ip + 40
    h = mix64(load64(tcp) ^ h, load64(tcp + 8) ^ seed)       # to the window
    h ^= (<uint64_t>tcp[18] << 8) | tcp[19]                  # the urgent pointer
    if tcp != rest:
        h = mix_bytes(h, rest, tcp - rest)
    if 20 + segment.options_len == (tcp[12] >> 4) * 4:
        h = mix_bytes(h, segment.options, segment.options_len)
    return mix64(h ^ MIX_C, seed ^ MIX_B)

# ------------------------------------------------------------------------------------------------ table

cdef inline uint64_t home_of(const Firsts* f, uint32_t tag) noexcept nogil:
    return tag & (2 * f.mask + 1)

cdef inline First* first_at(const Firsts* f, uint64_t number) noexcept nogil:
    return &f.ring[number & f.mask]

# The slot that names a packet with this fingerprint, or the empty one where it would stand.
cdef inline FirstSlot* find_slot(const Firsts* f, uint64_t fingerprint) noexcept nogil:
    cdef uint32_t tag = <uint32_t>fingerprint
    cdef uint64_t at = home_of(f, tag)
    while f.slots[at].place:
        if f.slots[at].tag == tag and f.ring[f.slots[at].place - 1].fingerprint == fingerprint:
            break
        at = (at + 1) & (2 * f.mask + 1)
    return &f.slots[at]

# Empties a slot and closes the gap, so that probes stay short without tombstones.
cdef inline void clear_slot(Firsts* f, uint64_t hole) noexcept nogil:
    cdef uint64_t last = 2 * f.mask + 1
    cdef uint64_t at = hole
    cdef uint64_t home
    while True:
        at = (at + 1) & last
        if f.slots[at].place == 0:
            break
        home = home_of(f, f.slots[at].tag)
        if ((at - home) & last) >= ((at - hole) & last):
            f.slots[hole] = f.slots[at]
            hole = at
    f.slots[hole].place = 0

cdef inline void forget_oldest(Firsts* f) noexcept nogil:
    cdef FirstSlot* slot = find_slot(f, first_at(f, f.head).fingerprint)
    if slot.place == <uint32_t>(f.head & f.mask) + 1:    # else a later packet has taken its place
        clear_slot(f, slot - f.slots)
    f.head += 1

cdef inline void forget_all(Firsts* f) noexcept nogil:
    while f.head != f.tail:
        forget_oldest(f)

# Moves everything into a ring of `places` (a power of two) and its table. Returns -1 without memory.
cdef inline int firsts_resize(Firsts* f, uint64_t places) noexcept nogil:
    cdef Firsts wider
    cdef FirstSlot* slot
    cdef First* first
    wider.ring = <First*>zeroed_block(places * sizeof(First))
    wider.slots = <FirstSlot*>zeroed_block(2 * places * sizeof(FirstSlot))
    if wider.ring == NULL or wider.slots == NULL:
        free(wider.ring)
        free(wider.slots)
        return -1
    wider.head = f.head
    wider.tail = f.head
    wider.mask = places - 1
    wider.last = f.last
    while wider.tail != f.tail:
        first = first_at(&wider, wider.tail)
        first[0] = first_at(f, wider.tail)[0]
        slot = find_slot(&wider, first.fingerprint)
        slot.tag = <uint32_t>first.fingerprint
        slot.place = <uint32_t>(wider.tail & wider.mask) + 1
        wider.tail += 1
    free(f.ring)
    free(f.slots)
    f[0] = wider
    return 0

# Whether a batch may need more places. Not at the bound, at which the oldest is forgotten instead.
cdef inline bint firsts_are_short(const Firsts* f, uint32_t packets) noexcept nogil:
    return f.ring == NULL or (f.tail - f.head + packets > f.mask + 1 and f.mask + 1 < FIRSTS_MOST)

# Twice as many places. Returns -1 without memory.
cdef inline int firsts_reserve(Firsts* f) noexcept nogil:
    return firsts_resize(f, 2 * (f.mask + 1) if f.ring != NULL else FIRSTS_LEAST)

cdef inline void firsts_free(Firsts* f) noexcept nogil:
    free(f.ring)
    free(f.slots)

cdef inline uint64_t firsts_bytes(const Firsts* f) noexcept nogil:
    return (f.mask + 1) * (sizeof(First) + 2 * sizeof(FirstSlot)) if f.ring != NULL else 0

cdef inline void prefetch_slot(const Firsts* f, uint64_t fingerprint) noexcept nogil:
    prefetch_write(&f.slots[home_of(f, <uint32_t>fingerprint)])

# Starts loading the slots of those, at most `packets`, that will be forgotten when the clock reaches `clock_ns`.
cdef inline void prefetch_oldest(const Firsts* f, int64_t clock_ns, uint32_t packets) noexcept nogil:
    cdef uint64_t number = f.head
    while number != f.tail and packets and clock_ns - first_at(f, number).clock_ns > COPY_MEMORY_NS:
        prefetch_slot(f, first_at(f, number).fingerprint)
        number += 1
        packets -= 1

# ------------------------------------------------------------------------------------------------ judgement

# Whether a packet is a copy of `first`, which has its fingerprint.
cdef inline bint is_copy_of(const First* first, const Segment* segment, const PacketRef* packet,
                            uint16_t vlan) noexcept nogil:
    cdef int64_t apart = packet.time_ns - first.time_ns
    if apart > COPY_WINDOW_NS or apart < -COPY_WINDOW_NS:
        return False
    return (segment.ip_id != 0 or first.ttl != segment.ttl or first.vlan != vlan
            or first.interface_id != packet.interface_id or first.tap != packet.tap)

# Whether the packet is a copy of one before it. If not, it is remembered as a first. Before: firsts_reserve, and
# `clock_ns` never decreases but for forget_all.
cdef inline bint take_duplicate(Firsts* f, const Segment* segment, const PacketRef* packet, uint64_t fingerprint,
                                int64_t clock_ns) noexcept nogil:
    cdef uint16_t vlan = segment.vlan_id if segment.has_vlan else NO_VLAN
    cdef FirstSlot* slot
    cdef First* first
    while f.head != f.tail and clock_ns - first_at(f, f.head).clock_ns > COPY_MEMORY_NS:
        forget_oldest(f)
    if f.tail - f.head > f.mask:
        forget_oldest(f)
    slot = find_slot(f, fingerprint)
    if slot.place and is_copy_of(&f.ring[slot.place - 1], segment, packet, vlan):
        f.last = f.head + ((slot.place - 1 - f.head) & f.mask)
        return True
    first = first_at(f, f.tail)
    first.fingerprint = fingerprint
    first.time_ns = packet.time_ns
    first.clock_ns = clock_ns
    first.interface_id = packet.interface_id
    first.tap = packet.tap
    first.vlan = vlan
    first.ttl = segment.ttl
    slot.tag = <uint32_t>fingerprint
    slot.place = <uint32_t>(f.tail & f.mask) + 1
    f.last = f.tail
    f.tail += 1
    return False
