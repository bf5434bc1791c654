# What a tracker holds memory in: the index and the arenas. They grow between batches only, so that no packet allocates.
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free

from synfin._core.arena cimport BLOCKS_SHIFT, RECORDS_SHIFT, arena_init, arena_reserve
from synfin._core.core cimport *
from synfin._core.duplicates cimport DUP_KEEP, firsts_reserve
from synfin._core.watch cimport watch_reserve

cdef extern from "core.h" nogil:
    void* huge_block(size_t size)

cdef enum:
    ARENAS = 10

cdef inline void init_arenas(Core* core) noexcept nogil:
    arena_init(&core.flows, sizeof(Flow), RECORDS_SHIFT)
    arena_init(&core.facts, sizeof(Facts), RECORDS_SHIFT)
    arena_init(&core.address_pairs, sizeof(AddressPair), RECORDS_SHIFT)
    arena_init(&core.closings, sizeof(Closing), BLOCKS_SHIFT)
    arena_init(&core.troubles, sizeof(Trouble), BLOCKS_SHIFT)
    arena_init(&core.copies, sizeof(Copies), BLOCKS_SHIFT)
    arena_init(&core.vlans, sizeof(Vlans), BLOCKS_SHIFT)
    arena_init(&core.tunnels, sizeof(Tunnel), BLOCKS_SHIFT)
    arena_init(&core.others, sizeof(Others), RECORDS_SHIFT)
    arena_init(&core.held_others, sizeof(Others), BLOCKS_SHIFT)

# The arenas by number, below ARENAS.
cdef inline Arena* arena_by_number(Core* core, int which) noexcept nogil:
    if which == 0:
        return &core.flows
    if which == 1:
        return &core.facts
    if which == 2:
        return &core.address_pairs
    if which == 3:
        return &core.closings
    if which == 4:
        return &core.troubles
    if which == 5:
        return &core.copies
    if which == 6:
        return &core.vlans
    if which == 7:
        return &core.tunnels
    return &core.others if which == 8 else &core.held_others

# Moves the index into `slots` slots; it touches no record, so a million entries take milliseconds. Returns -1 without
# memory.
cdef inline int grow_table(Table* table, uint64_t slots) noexcept nogil:
    cdef Slot* old = table.slots
    cdef uint64_t i, count = <uint64_t>table.mask + 1 if old != NULL else 0
    cdef uint32_t at
    cdef Slot* fresh = <Slot*>huge_block(slots * sizeof(Slot))
    if fresh == NULL:
        return -1
    memset(fresh, 0, slots * sizeof(Slot))
    table.slots = fresh
    table.mask = <uint32_t>(slots - 1)
    table.crowded = False
    for i in range(count):
        if old[i].flow:
            at = old[i].hash & table.mask
            while fresh[at].flow:
                at = (at + 1) & table.mask
            fresh[at] = old[i]
    free(old)
    return 0

# Room for whatever one batch can take. Returns -1 without memory.
cdef inline int reserve(Core* core) noexcept nogil:
    cdef uint64_t slots = <uint64_t>core.table.mask + 1
    cdef uint32_t blocks = 2 * BATCH_PACKETS
    if core.table.count + BATCH_PACKETS > slots * 3 // 4 or (core.table.crowded and slots < (<uint64_t>1 << 31)):
        if grow_table(&core.table, slots * 2) < 0:
            return -1
    if (arena_reserve(&core.flows, BATCH_PACKETS) < 0 or arena_reserve(&core.address_pairs, BATCH_PACKETS) < 0
            or arena_reserve(&core.closings, blocks) < 0 or arena_reserve(&core.troubles, blocks) < 0
            or arena_reserve(&core.copies, BATCH_PACKETS) < 0 or arena_reserve(&core.vlans, blocks) < 0
            or arena_reserve(&core.tunnels, BATCH_PACKETS) < 0):
        return -1
    while core.config.others and core.others.chunk_count < core.flows.chunk_count:
        if arena_reserve(&core.others, ((core.others.chunk_count + 1) << RECORDS_SHIFT) - 1) < 0:
            return -1
    if core.config.others and arena_reserve(&core.held_others, blocks) < 0:
        return -1
    if core.config.duplicates != DUP_KEEP and firsts_reserve(&core.firsts, BATCH_PACKETS) < 0:
        return -1
    if core.watch != NULL and watch_reserve(
            core.watch, <uint64_t>core.flows.chunk_count << RECORDS_SHIFT, BATCH_PACKETS) < 0:
        return -1
    while core.facts.chunk_count < core.flows.chunk_count:
        if arena_reserve(&core.facts, ((core.facts.chunk_count + 1) << RECORDS_SHIFT) - 1) < 0:
            return -1
    return 0
