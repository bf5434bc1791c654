# Which service and which client a record is counted under (SPEC 5, `--by`): the present direction of the record says it.
# After each packet of a record, and when it ends, what was counted of it since then goes to its keys, and the gauges of
# its keys follow its face. A record that is turned round takes its gauges along; what was counted stays. The same for a
# service that is listed. Nothing of this is done, and nothing kept, unless a table by key is asked for, or services are.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, qsort, realloc

from synfin._core.arena cimport arena_bytes, arena_free, arena_init, arena_reserve
from synfin._core.core cimport *
from synfin._core.keyed cimport *
from synfin._core.listed cimport Listed, find_listed, listed_face
from synfin._core.parts cimport ID_ADDRESS, ID_PORT, parts_full
from synfin._core.table cimport table_bytes, table_reserve

cdef enum:
    # What one packet may take: it ends a record (by its deadline, by reuse, or at a cap), begins another, turns one
    # round.
    KEYS_A_PACKET = 2
    TALLIES_A_PACKET = 5
    SAMPLES_A_PACKET = 2
    OPEN_TALLIES = 3         # of one key, as a rule: the interval in hand and those that the reorder allowance reaches

cdef inline Kept* kept_of(Core* core, uint32_t number) noexcept nogil:
    return <Kept*>core.kept.chunks[number >> RECORDS_SHIFT] + (number & ((1 << RECORDS_SHIFT) - 1))    # as flow_of

# ------------------------------------------------------------------------------------------------ a record's keys

cdef inline void _id_of(Core* core, int table, uint32_t number, uint8_t* id) noexcept nogil:
    cdef const Flow* flow = flow_of(core, number)
    cdef int end = 1 - client_end(flow) if table == BY_SERVICE else client_end(flow)
    memset(id, 0, ID_BYTES)
    id[0] = <uint8_t>(table + 1)
    id[ID_VERSION] = 6 if flow.marks & FM_IPV6 else 4
    if flow.marks & FM_IPV6:
        memcpy(id + ID_ADDRESS, (<AddressPair*>arena_at(&core.address_pairs, flow.key_low)).addr[end], 16)
    else:
        put_be32(id + ID_ADDRESS, flow.key_high if end else flow.key_low)
    if table == BY_SERVICE:
        id[ID_PORT] = <uint8_t>(flow.port[end] >> 8)
        id[ID_PORT + 1] = <uint8_t>flow.port[end]

cdef inline void _follow_listed(Core* core, uint32_t number, uint32_t face, bint turned) noexcept nogil:
    cdef Kept* kept = kept_of(core, number)
    cdef uint8_t id[ID_BYTES]
    listed_face(&core.listing, kept.listed, kept.face & FACE_BITS, -1)
    if turned:
        _id_of(core, BY_SERVICE, number, id)
        kept.listed = find_listed(&core.listing, id)
    listed_face(&core.listing, kept.listed, face & FACE_BITS, 1)

# The record's gauges are those of its keys as it stands.
cdef inline void _follow(Core* core, uint32_t number, int64_t effective) noexcept nogil:
    cdef Kept* kept = kept_of(core, number)
    cdef const Flow* flow = flow_of(core, number)
    cdef uint32_t face = face_of(flow) | FACE_KEPT | (FACE_CLIENT_IS_1 if client_end(flow) else 0)
    cdef bint turned = (face ^ kept.face) & ~FACE_BITS != 0
    cdef uint8_t id[ID_BYTES]
    cdef uint32_t key
    cdef ByKey* by
    cdef int table
    if face == kept.face:
        return
    if core.listing.count:
        _follow_listed(core, number, face, turned)
    for table in range(KEY_TABLES):
        by = &core.by[table]
        if not by.asked:
            continue
        key = kept.keys[table]
        if not turned:
            key_change(by, &core.intervals, key, effective, core.since, kept.face & FACE_BITS, face & FACE_BITS)
            continue
        if key:
            key_change(by, &core.intervals, key, effective, core.since, kept.face & FACE_BITS, 0)
            release_key(by, key)
        _id_of(core, table, number, id)
        kept.keys[table] = find_key(by, id, core.config.seed)
        hold_key(by, kept.keys[table])
        key_change(by, &core.intervals, kept.keys[table], effective, core.since, 0, face & FACE_BITS)
    kept.face = face

cdef inline void _count_listed(Listed* listed, uint32_t hand, uint32_t packets, uint32_t ip_bytes) noexcept nogil:
    cdef int i
    listed.counts[ICOL_PACKETS - ICOL_SYNS] += packets
    listed.counts[ICOL_IP_BYTES - ICOL_SYNS] += ip_bytes
    for i in range(COUNTS):
        listed.counts[i] += (hand >> i) & 1

# Counts under the record's keys what was counted of it since the last time, and a packet.
cdef inline void _count(Core* core, uint32_t number, int64_t effective, uint32_t packets,
                        uint32_t ip_bytes) noexcept nogil:
    cdef const Kept* kept = kept_of(core, number)
    cdef Intervals* iv = &core.intervals
    cdef int64_t interval = floor_div(interval_slice_at(iv, effective), SLICES)
    cdef uint32_t tally, hand
    cdef int table, i
    if kept.listed:
        _count_listed(&core.listing.services[kept.listed - 1], iv.hand, packets, ip_bytes)
    for table in range(KEY_TABLES):
        if not core.by[table].asked:
            continue
        tally = tally_of(&core.by[table], iv, kept.keys[table], interval, core.since)
        tally_at(&core.by[table], tally).counts[ICOL_PACKETS - ICOL_SYNS] += packets
        tally_at(&core.by[table], tally).counts[ICOL_IP_BYTES - ICOL_SYNS] += ip_bytes
        hand = iv.hand
        i = 0
        while hand:
            if hand & 1 and i < COUNTS:
                tally_at(&core.by[table], tally).counts[i] += 1
            elif hand & 1:
                add_sample(&core.by[table], tally, i - COUNTS, iv.hand_rtt[i - COUNTS])
            hand >>= 1
            i += 1
    iv.hand = 0

# A packet went to a record, which stands as it left it; 0: none did, but something was said of the record.
cdef inline void by_packet(Core* core, uint32_t number, int64_t effective, uint32_t packets,
                           uint32_t ip_bytes) noexcept nogil:
    _follow(core, number, effective)
    if packets or core.intervals.hand:
        _count(core, number, effective, packets, ip_bytes)

# A record ends at effective time. Not at the end of the input, which takes nothing off the gauges.
cdef inline void by_end(Core* core, uint32_t number, int64_t effective) noexcept nogil:
    cdef Kept* kept = kept_of(core, number)
    cdef int table
    if core.intervals.hand:
        _count(core, number, effective, 0, 0)
    listed_face(&core.listing, kept.listed, kept.face & FACE_BITS, -1)
    for table in range(KEY_TABLES):
        if core.by[table].asked:
            key_change(&core.by[table], &core.intervals, kept.keys[table], effective, core.since,
                       kept.face & FACE_BITS, 0)
            release_key(&core.by[table], kept.keys[table])
    memset(kept, 0, sizeof(Kept))

# ------------------------------------------------------------------------------------------------ capture time goes on

# The lowest open slice is closed. Before: next_slice is still its number.
cdef inline void by_close_slice(Core* core) noexcept nogil:
    cdef int table
    for table in range(KEY_TABLES):
        if core.by[table].asked:
            close_key_slice(&core.by[table], &core.intervals, core.since)

cdef inline int _by_id(const void* a, const void* b) noexcept nogil:
    return memcmp((<const Turn*>a).id, (<const Turn*>b).id, ID_BYTES)

# The keys that have a part of the interval, in the order in which they are told. One tracker alone may tell them in any.
cdef inline void _line_up(Core* core, ByKey* by, int64_t interval) noexcept nogil:
    cdef uint32_t number = by.interval_tallies[interval & core.intervals.interval_mask]
    cdef Keyed* keyed
    while number:
        keyed_at(by, tally_at(by, number).keyed).recent = number
        number = tally_at(by, number).next
    by.turn_count = by.turn = 0
    for number in range(1, by.keys.fresh):
        keyed = keyed_at(by, number)
        if keyed.holders and ((keyed.recent and tally_at(by, keyed.recent).interval == interval) or has_gauges(keyed)):
            memcpy(by.turns[by.turn_count].id, keyed.id, ID_BYTES)
            by.turns[by.turn_count].number = number
            by.turn_count += 1
    if core.sorted_parts:
        qsort(by.turns, by.turn_count, sizeof(Turn), _by_id)

# Goes on telling the parts by key of an interval that has ended. Returns False when their room is full; another call goes
# on, and until it is over nothing may change.
cdef inline bint by_tell(Core* core) noexcept nogil:
    cdef ByKey* by
    cdef int table
    if core.told == NEVER:
        return True
    for table in range(KEY_TABLES):
        by = &core.by[table]
        while by.asked and by.turn < by.turn_count:
            if parts_full(&core.parts):
                return False
            put_key_part(by, &core.parts, by.turns[by.turn].number, core.stats.steps, core.told, core.told_complete,
                         core.since, core.intervals.next_slice)
            by.turn += 1
    for table in range(KEY_TABLES):
        if core.by[table].asked:
            drop_tallies(&core.by[table], &core.intervals, core.told)
    core.told = NEVER
    return True

# Begins to tell the parts of the interval that ends with the last closed slice.
cdef inline void by_interval(Core* core, int64_t interval, bint complete) noexcept nogil:
    cdef int table
    core.told = interval
    core.told_complete = complete
    for table in range(KEY_TABLES):
        if core.by[table].asked:
            _line_up(core, &core.by[table], interval)

# ------------------------------------------------------------------------------------------------ memory

cdef enum:
    KEY_ARENAS = 4

cdef inline Arena* key_arena(ByKey* by, int which) noexcept nogil:
    if which == 0:
        return &by.keys
    if which == 1:
        return &by.tallies
    return &by.samples if which == 2 else &by.changes

cdef inline void by_init(ByKey* by, uint32_t most) noexcept nogil:
    by.asked = True
    by.most = most
    arena_init(&by.keys, sizeof(Keyed), RECORDS_SHIFT)
    arena_init(&by.tallies, sizeof(Tally), RECORDS_SHIFT)
    arena_init(&by.samples, sizeof(Sample), RECORDS_SHIFT)
    arena_init(&by.changes, sizeof(Change), RECORDS_SHIFT)

# The key of all others, which is the first and lives from the beginning. Before: by_init, room for one key.
cdef inline void key_of_others(ByKey* by, int table) noexcept nogil:
    cdef Keyed* keyed = keyed_at(by, arena_take(&by.keys))
    keyed.id[0] = <uint8_t>(table + 1)
    keyed.id[ID_VERSION] = ID_OTHERS
    keyed.holders = 1

cdef inline void by_free(ByKey* by) noexcept nogil:
    cdef int i
    for i in range(KEY_ARENAS):
        arena_free(key_arena(by, i))
    free(by.key_index.slots)
    free(by.tally_index.slots)
    free(by.sample_index.slots)
    free(by.interval_tallies)
    free(by.slice_changes)
    free(by.turns)

# Bytes that a table by key takes.
cdef inline int64_t by_bytes(ByKey* by) noexcept nogil:
    cdef int64_t total = table_bytes(&by.key_index) + table_bytes(&by.tally_index) + table_bytes(&by.sample_index)
    cdef int i
    if not by.asked:
        return 0
    for i in range(KEY_ARENAS):
        total += arena_bytes(key_arena(by, i))
    return total + <int64_t>by.turn_room * sizeof(Turn)

# Of these, what lies in chunks and was never touched.
cdef inline int64_t by_untouched_bytes(ByKey* by) noexcept nogil:
    cdef int64_t total = 0
    cdef Arena* arena
    cdef int i
    for i in range(KEY_ARENAS):
        arena = key_arena(by, i)
        if by.asked and arena.chunk_count:
            total += ((<int64_t>arena.chunk_count << arena.shift) - arena.fresh) * arena.item_bytes
    return total

# What a chunk of keys comes to, with their tallies.
cdef inline int64_t keys_chunk_bytes() noexcept nogil:
    return <int64_t>(sizeof(Keyed) + sizeof(Turn) + OPEN_TALLIES * sizeof(Tally)) << RECORDS_SHIFT

# Room for what `packets` packets, and as many ends of records as find room among the rows, may take; further keys only
# where `may_grow`. Returns -1 without memory.
cdef inline int by_reserve(Core* core, ByKey* by, uint32_t packets, bint may_grow) noexcept nogil:
    cdef uint32_t ends = core.rows.capacity - core.rows.rows if core.rows.capacity > core.rows.rows else 0
    cdef uint32_t tallies = ends + TALLIES_A_PACKET * packets
    cdef Turn* turns
    cdef uint32_t room
    if may_grow and by.key_index.count < by.most and arena_reserve(&by.keys, KEYS_A_PACKET * packets) < 0:
        return -1
    room = by.keys.chunk_count << RECORDS_SHIFT
    if room > by.turn_room:
        turns = <Turn*>realloc(by.turns, <uint64_t>room * sizeof(Turn))
        if turns == NULL:
            return -1
        by.turns = turns
        by.turn_room = room
    if (arena_reserve(&by.tallies, tallies) < 0 or arena_reserve(&by.changes, tallies) < 0
            or arena_reserve(&by.samples, SAMPLES_A_PACKET * packets) < 0
            or table_reserve(&by.key_index, KEYS_A_PACKET * packets) < 0
            or table_reserve(&by.tally_index, tallies) < 0
            or table_reserve(&by.sample_index, SAMPLES_A_PACKET * packets) < 0):
        return -1
    return 0
