# What a tracker holds memory in: the index and the arenas. They grow between batches only, so that no packet allocates.
from libc.stdint cimport int64_t, uint32_t, uint64_t

from synfin._core.arena cimport BLOCKS_SHIFT, RECORDS_SHIFT, arena_bytes, arena_init, arena_reserve, items_left
from synfin._core.by cimport KEYS_A_PACKET, by_bytes, by_reserve, by_untouched_bytes, keys_chunk_bytes
from synfin._core.core cimport *
from synfin._core.duplicates cimport DUP_KEEP, firsts_are_short, firsts_bytes, firsts_reserve
from synfin._core.record cimport evict_record
from synfin._core.sweep cimport rows_full
from synfin._core.watch cimport watch_reserve

cdef extern from "core.h" nogil:
    int64_t resident_bytes()

cdef enum:
    ARENAS = 15
    BY_RECORD = 5            # those before it go by the numbers of records, the others hold blocks
    ADDRESS_PAIRS = 5
    COPIES = 9
    HELDS = 11
    TUNNELS = 13

cdef inline void init_arenas(Core* core) noexcept nogil:
    arena_init(&core.flows, sizeof(Flow), RECORDS_SHIFT)
    arena_init(&core.facts, sizeof(Facts), RECORDS_SHIFT)
    arena_init(&core.address_pairs, sizeof(AddressPair), RECORDS_SHIFT)
    arena_init(&core.extras, sizeof(Extra), BLOCKS_SHIFT)
    arena_init(&core.wides, sizeof(Wide), BLOCKS_SHIFT)
    arena_init(&core.troubles, sizeof(Trouble), BLOCKS_SHIFT)
    arena_init(&core.copies, sizeof(Copies), BLOCKS_SHIFT)
    arena_init(&core.copy_pairs, sizeof(CopyPair), BLOCKS_SHIFT)
    arena_init(&core.helds, sizeof(Held), BLOCKS_SHIFT)
    arena_init(&core.vlans, sizeof(Vlans), BLOCKS_SHIFT)
    arena_init(&core.tunnels, sizeof(Tunnel), BLOCKS_SHIFT)
    arena_init(&core.others, sizeof(Others), RECORDS_SHIFT)
    arena_init(&core.ages, sizeof(Age), RECORDS_SHIFT)
    arena_init(&core.held_others, sizeof(Others), BLOCKS_SHIFT)
    arena_init(&core.kept, sizeof(Kept), RECORDS_SHIFT)

# The arenas by number, below ARENAS.
cdef inline Arena* arena_by_number(Core* core, int which) noexcept nogil:
    if which == 0:
        return &core.flows
    if which == 1:
        return &core.facts
    if which == 2:
        return &core.ages
    if which == 3:
        return &core.others
    if which == 4:
        return &core.kept
    if which == ADDRESS_PAIRS:
        return &core.address_pairs
    if which == 6:
        return &core.extras
    if which == 7:
        return &core.wides
    if which == 8:
        return &core.troubles
    if which == COPIES:
        return &core.copies
    if which == 10:
        return &core.copy_pairs
    if which == HELDS:
        return &core.helds
    if which == 12:
        return &core.vlans
    return &core.tunnels if which == TUNNELS else &core.held_others

# ------------------------------------------------------------------------------------------------ how much may be taken

cdef enum:
    CHUNK_RECORDS = 1 << RECORDS_SHIFT

# What reserve() came to.
cdef enum:
    RESERVED = 0
    ROWS_FIRST = 1           # the sink is full; call it again when the rows were taken
    NO_MEMORY = -1
    OVER_LIMIT = -2          # the process's limit leaves no room even for the first records

cdef inline uint64_t index_bytes(const Core* core) noexcept nogil:
    return (<uint64_t>core.table.mask + 1) * sizeof(Slot)

# Bytes that grow with connections; `touched`: as far as they can lie in memory, the rest of the last chunks left out.
cdef inline int64_t counted_bytes(Core* core, bint touched) noexcept nogil:
    cdef int64_t total = index_bytes(core) + firsts_bytes(&core.firsts)
    cdef Arena* arena
    cdef uint32_t fresh
    cdef int i
    for i in range(KEY_TABLES):
        total += by_bytes(&core.by[i]) - (by_untouched_bytes(&core.by[i]) if touched else 0)
    for i in range(ARENAS):
        arena = arena_by_number(core, i)
        total += arena_bytes(arena)
        if touched and arena.chunk_count:
            fresh = core.flows.fresh if i < BY_RECORD else arena.fresh
            total -= ((<int64_t>arena.chunk_count << arena.shift) - fresh) * arena.item_bytes
    return total

# Whether `bytes` more may be taken, of which records get at most three quarters: what they come to need (holes, copies of
# SYNs, FINs) is taken later. Asked only when a chunk is to be added, and after a refusal not again, since neither side of
# the comparison falls: what the process has beside is the most that was ever seen.
cdef inline bint may_take(Core* core, int64_t bytes, bint for_records) noexcept nogil:
    cdef Budget* budget = &core.budget
    cdef int64_t beside, room
    if budget.limit == 0:
        return True
    beside = resident_bytes() - counted_bytes(core, True)
    if beside > budget.beside:
        budget.beside = beside
    room = budget.limit - budget.spare - budget.beside
    return counted_bytes(core, False) + bytes <= (room // 4 * 3 if for_records else room)

# ------------------------------------------------------------------------------------------------ growth

# Room for what tables by key may take (by.pxd) of what `packets` packets do. Where memory gives out, no further key has a
# place of its own, but what those come to need that have one is taken all the same. Returns -1 without memory.
cdef inline int reserve_keys(Core* core, uint32_t packets) noexcept nogil:
    cdef ByKey* by
    cdef int table
    for table in range(KEY_TABLES):
        by = &core.by[table]
        if not by.asked:
            continue
        if items_left(&by.keys) < KEYS_A_PACKET * <int64_t>packets and not core.budget.keys_full:
            core.budget.keys_full = not may_take(core, keys_chunk_bytes(), False)
        if by_reserve(core, by, packets, not core.budget.keys_full) < 0:
            return -1
    return 0

# Gives an arena that goes by the numbers of records as many chunks as these have. Returns -1 without memory.
cdef inline int follow_records(Core* core, Arena* arena) noexcept nogil:
    while arena.chunk_count < core.flows.chunk_count:
        if arena_reserve(arena, ((arena.chunk_count + 1) << RECORDS_SHIFT) - 1) < 0:
            return -1
    return 0

# Room for the records that a batch may begin; where no more can be made, what is there is the cap.
cdef inline int reserve_records(Core* core) noexcept nogil:
    cdef int64_t wanted = core.config.max_flows - core.table.count
    cdef uint32_t chunk = core.kept.chunk_count
    cdef int64_t bytes = CHUNK_RECORDS * <int64_t>(sizeof(Flow) + sizeof(Facts))
    if wanted > BATCH_PACKETS:
        wanted = BATCH_PACKETS
    if items_left(&core.flows) < wanted and not core.budget.records_full:
        bytes += CHUNK_RECORDS * <int64_t>((sizeof(Age) if core.capped else 0) + (sizeof(Kept) if core.keyed else 0)
                                           + (sizeof(Others) if core.config.others else 0))
        core.budget.records_full = not may_take(core, bytes, True)
        if not core.budget.records_full and arena_reserve(&core.flows, <uint32_t>wanted) < 0:
            return NO_MEMORY
    if core.flows.chunk_count == 0:
        return OVER_LIMIT
    core.cap = core.config.max_flows
    if core.budget.records_full and items_left(&core.flows) + core.table.count < core.cap:
        core.cap = <uint32_t>(items_left(&core.flows) + core.table.count)
    if (follow_records(core, &core.facts) < 0 or (core.capped and follow_records(core, &core.ages) < 0)
            or (core.config.others and follow_records(core, &core.others) < 0)
            or (core.keyed and follow_records(core, &core.kept) < 0)):
        return NO_MEMORY
    for chunk in range(chunk, core.kept.chunk_count):
        memset(core.kept.chunks[chunk], 0, CHUNK_RECORDS * sizeof(Kept))
    return RESERVED

# The index for as many records; where it cannot be doubled, three quarters of it are the cap.
cdef inline int reserve_index(Core* core) noexcept nogil:
    cdef uint64_t slots = <uint64_t>core.table.mask + 1
    cdef uint64_t wanted = core.table.count + BATCH_PACKETS
    cdef bint short_of = (wanted if wanted < core.cap else core.cap) > slots * 3 // 4
    if (short_of or (core.table.crowded and slots < (<uint64_t>1 << 31))) and not core.budget.index_full:
        core.budget.index_full = not may_take(core, 2 * index_bytes(core), True)     # beside the old one
        if not core.budget.index_full and grow_table(&core.table, slots * 2) < 0:
            return NO_MEMORY
    if core.budget.index_full and slots * 3 // 4 < core.cap:
        core.cap = <uint32_t>(slots * 3 // 4)
    return RESERVED

# Room for the blocks of one kind that a batch may take; where no more can be made, records end until enough are free.
cdef inline int reserve_blocks(Core* core, Arena* arena, uint32_t count) noexcept nogil:
    cdef int64_t bytes = (<int64_t>arena.item_bytes << arena.shift) * (1 + (count >> arena.shift))
    if items_left(arena) >= count:
        return RESERVED
    if not core.budget.blocks_full:
        if may_take(core, bytes, False):
            return RESERVED if arena_reserve(arena, count) == 0 else NO_MEMORY
        if arena.chunk_count == 0:
            return OVER_LIMIT
        core.budget.blocks_full = True
    while items_left(arena) < count:
        if core.table.count == 0:
            return NO_MEMORY
        if rows_full(&core.rows):
            return ROWS_FIRST
        evict_record(core)
    return RESERVED

# Whether a packet takes at most one of the arena's blocks; else two, where it ends one record and begins another.
cdef inline bint once_a_packet(int arena) noexcept nogil:
    return arena == ADDRESS_PAIRS or arena == COPIES or arena == HELDS or arena == TUNNELS

# Room for whatever one batch can take (RESERVED and so on).
cdef inline int reserve(Core* core) noexcept nogil:
    cdef int i, got = reserve_records(core)
    if core.keyed and got == RESERVED and reserve_keys(core, BATCH_PACKETS) < 0:
        got = NO_MEMORY
    if got == RESERVED:
        got = reserve_index(core)
    for i in range(BY_RECORD, ARENAS if core.config.others else ARENAS - 1):
        if got == RESERVED:
            got = reserve_blocks(core, arena_by_number(core, i), BATCH_PACKETS * (1 if once_a_packet(i) else 2))
    if got != RESERVED:
        return got
    # A ring that may not grow forgets the oldest packets earlier.
    if (core.config.duplicates != DUP_KEEP and firsts_are_short(&core.firsts, BATCH_PACKETS)
            and (core.firsts.ring == NULL or may_take(core, 2 * firsts_bytes(&core.firsts), False))
            and firsts_reserve(&core.firsts) < 0):
        return NO_MEMORY
    if core.watch != NULL and watch_reserve(
            core.watch, <uint64_t>core.flows.chunk_count << RECORDS_SHIFT, BATCH_PACKETS) < 0:
        return NO_MEMORY
    return RESERVED
