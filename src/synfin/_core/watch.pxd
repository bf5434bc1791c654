# Which packets went to which record, kept only for records that somebody asked for. Packets are told by their place in
# the input, records by their birth: a number that is never used twice. A SYN that is held beside a record has a birth of
# its own, which stands for the record that it may begin; until that is proven it leads to the record beside which it is
# held.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memset

from synfin._core.key cimport Key

# One end as it was asked for.
cdef struct WatchedEnd:
    bint asked
    uint8_t ip_version
    uint8_t addr[16]
    int32_t port             # -1: any

cdef struct Birth:
    uint32_t to              # the birth that its packets belong to; 0: to nobody who was asked for
    bint asked               # by flow_id, or by one of the ends
    bint chosen              # its record has ended, and is one of those asked for

# What a live record is, by its number.
cdef struct Born:
    uint32_t own
    uint32_t held            # of the SYN held beside it

cdef struct Watch:
    bint by_flow_id
    int64_t flow_id
    WatchedEnd side[2]       # client, server
    Born* of
    uint64_t of_room
    Birth* births            # [0] is nobody
    uint64_t birth_count
    uint64_t birth_room
    int64_t* packets         # place in the input, from 1, ascending
    uint32_t* went           # their births
    uint64_t packet_count
    uint64_t packet_room
    bint held                # the packet in hand is held


cdef inline void watch_free(Watch* w) noexcept nogil:
    free(w.of)
    free(w.births)
    free(w.packets)
    free(w.went)
    free(w)


cdef inline int _grow(void** items, uint64_t count, uint64_t item_bytes) noexcept nogil:
    cdef void* grown = realloc(items[0], count * item_bytes)
    if grown == NULL:
        return -1
    items[0] = grown
    return 0


# Room for a batch of `packets`; `records` is the number of the highest record that it can begin, plus 1. Returns -1
# without memory.
cdef inline int watch_reserve(Watch* w, uint64_t records, uint64_t packets) noexcept nogil:
    cdef uint64_t room
    if w.of_room < records:
        if _grow(<void**>&w.of, records, sizeof(Born)) < 0:
            return -1
        w.of_room = records
    if w.birth_count + 2 * packets > w.birth_room:       # a packet begins a record or is held
        room = 2 * w.birth_room + 2 * packets
        if room > <uint64_t>0xFFFFFFFF or _grow(<void**>&w.births, room, sizeof(Birth)) < 0:
            return -1
        w.birth_room = room
    if w.birth_count == 0:
        memset(w.births, 0, sizeof(Birth))
        w.birth_count = 1
    if w.packet_count + packets > w.packet_room:
        room = 2 * w.packet_room + packets
        if (_grow(<void**>&w.packets, room, sizeof(int64_t)) < 0
                or _grow(<void**>&w.went, room, sizeof(uint32_t)) < 0):
            return -1
        w.packet_room = room
    return 0


cdef inline bint _is_end(const WatchedEnd* asked, const Key* key, int end) noexcept nogil:
    if not asked.asked:
        return True
    return (asked.ip_version == key.ip_version and memcmp(asked.addr, key.addr[end], 16) == 0
            and (asked.port < 0 or asked.port == key.port[end]))


# Could this record be one of those asked for? Which end is the client is only known when it has ended.
cdef inline bint _asks_for(const Watch* w, const Key* key, int64_t flow_id) noexcept nogil:
    if w.by_flow_id and w.flow_id != flow_id:
        return False
    return ((_is_end(&w.side[0], key, 0) and _is_end(&w.side[1], key, 1))
            or (_is_end(&w.side[0], key, 1) and _is_end(&w.side[1], key, 0)))


cdef inline uint32_t _new_birth(Watch* w, bint asked) noexcept nogil:
    cdef uint32_t birth = <uint32_t>w.birth_count
    w.births[birth].to = birth
    w.births[birth].asked = asked
    w.births[birth].chosen = False
    w.birth_count += 1
    return birth


cdef inline void watch_begin(Watch* w, uint32_t number, const Key* key, int64_t flow_id) noexcept nogil:
    w.of[number].held = 0
    w.of[number].own = _new_birth(w, True) if _asks_for(w, key, flow_id) else 0


# A SYN is held beside the record; `fresh`: it is the first of its copies. flow_id is that of the record it may begin.
cdef inline void watch_hold(Watch* w, uint32_t number, const Key* key, int64_t flow_id, bint fresh) noexcept nogil:
    cdef Born* born = &w.of[number]
    cdef bint asked
    w.held = True
    if not fresh:
        return
    asked = _asks_for(w, key, flow_id)
    born.held = _new_birth(w, asked) if asked or born.own else 0
    w.births[born.held].to = born.own


# The SYN that was held beside an old record has begun the record `number`; `birth` is what its copies went to.
cdef inline void watch_prove(Watch* w, uint32_t number, uint32_t birth) noexcept nogil:
    w.of[number].own = birth
    w.of[number].held = 0
    w.births[birth].to = birth


# The packet with this place in the input went to the record, or is held beside it.
cdef inline void watch_packet(Watch* w, uint32_t number, int64_t place) noexcept nogil:
    cdef uint32_t birth = w.of[number].held if w.held else w.of[number].own
    w.held = False
    if birth == 0:
        return
    w.packets[w.packet_count] = place
    w.went[w.packet_count] = birth
    w.packet_count += 1


cdef inline void watch_end(Watch* w, uint32_t number, const Key* key, int client) noexcept nogil:
    cdef Birth* birth = &w.births[w.of[number].own]
    birth.chosen = birth.asked and _is_end(&w.side[0], key, client) and _is_end(&w.side[1], key, 1 - client)


cdef inline bint watch_wants(const Watch* w, uint64_t packet) noexcept nogil:
    return w.births[w.births[w.went[packet]].to].chosen
