# The interval table by key, a service or a client, while it grows; as intervals.pxd, but for each key apart, and only
# what is there: a Keyed for each key that lives, a Tally for what it has in an open interval, a Sample for each bucket of
# its round trips. Changes of gauges in slices to come wait in a list of their slice. All of it lies in arenas, and is
# found in constant time.
#
# A key lives while it has records or tallies. More than `most` do not live at once: what belongs to a further one is
# counted under the key of all others, and stays there.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from synfin._core.arena cimport RECORDS_SHIFT, Arena, arena_at, arena_give, arena_take, items_left
from synfin._core.declared cimport *
from synfin._core.intervals cimport *
from synfin._core.parts cimport ID_BYTES, ID_OTHERS, ID_VERSION, Part, Parts, part_bucket, part_next
from synfin._core.table cimport Table, table_insert, table_remove

cdef extern from "core.h" nogil:
    uint64_t mix64(uint64_t a, uint64_t b)
    const uint64_t MIX_A, MIX_B

cdef enum:
    BY_SERVICE = 0           # the order of schema.KEYS; in an id, 1 more
    BY_CLIENT = 1
    KEY_TABLES = 2
    OTHERS = 1               # the number of the key of all others
    FACE_BITS = 0x1FFF       # what face_of gives (core.pxd)

cdef struct Keyed:
    uint8_t id[ID_BYTES]
    uint32_t hash
    uint32_t holders         # records and tallies; 0: the place is free
    uint32_t recent          # its tally that was asked for last, 0: none
    int64_t gauges[GAUGES]   # as of the end of the last closed slice, and of the open one after it as far as it is known

# What a key has in an open interval. Its being there means that the interval has a row of the key.
cdef struct Tally:
    uint32_t next            # of the same interval; 0: the last
    uint32_t keyed
    uint32_t hash
    uint32_t filled          # slices of the course that are settled
    int64_t interval
    int64_t counts[COUNTS]
    int64_t course[PEAKS][SLICES]
    int64_t rtt_max[2]
    uint32_t samples[2]      # its buckets with samples, of server and client; 0: none

cdef struct Sample:
    uint32_t next
    uint32_t hash
    uint32_t tally
    uint32_t place           # the bucket, and above it the side
    uint64_t count

cdef struct Change:
    uint32_t next            # of the same slice
    uint32_t keyed
    uint16_t before          # faces; 0: none
    uint16_t after

# What a record is counted under, by its number.
cdef struct Kept:
    uint32_t keys[KEY_TABLES]    # 0: the table was not asked for
    uint32_t listed          # its service among those that are listed, 0: none (listed.pxd)
    uint32_t face            # as counted there, with FACE_* above it; 0: not yet

cdef enum:
    FACE_KEPT = 1 << 30
    FACE_CLIENT_IS_1 = 1 << 29

# A key in the order in which its parts are told.
cdef struct Turn:
    uint8_t id[ID_BYTES]
    uint32_t number

cdef struct ByKey:
    bint asked
    Arena keys
    Arena tallies
    Arena samples
    Arena changes
    Table key_index
    Table tally_index
    Table sample_index
    uint32_t most            # keys that may live at once
    uint32_t* interval_tallies   # the newest of each open interval
    uint32_t* slice_changes      # likewise of each open slice
    Turn* turns              # room for all keys
    uint32_t turn_room
    uint32_t turn_count
    uint32_t turn            # the next to be told

cdef inline Keyed* keyed_at(const ByKey* by, uint32_t number) noexcept nogil:
    return <Keyed*>arena_at(&by.keys, number)

cdef inline Tally* tally_at(const ByKey* by, uint32_t number) noexcept nogil:
    return <Tally*>arena_at(&by.tallies, number)

cdef inline Sample* sample_at(const ByKey* by, uint32_t number) noexcept nogil:
    return <Sample*>arena_at(&by.samples, number)

cdef inline uint32_t _hashed(uint64_t a, uint64_t b) noexcept nogil:
    cdef uint64_t word = mix64(a ^ MIX_A, b ^ MIX_B)
    return <uint32_t>(word ^ (word >> 32))

cdef inline uint32_t id_hash(const uint8_t* id, uint64_t seed) noexcept nogil:
    cdef uint64_t low, high
    cdef uint32_t rest
    memcpy(&low, id, 8)
    memcpy(&high, id + 8, 8)
    memcpy(&rest, id + 16, 4)
    return _hashed(mix64(low ^ seed, high ^ MIX_B) ^ rest, seed)

# ------------------------------------------------------------------------------------------------ keys

# The number of a key, which begins to live where it does not; OTHERS where there is no room for it.
cdef inline uint32_t find_key(ByKey* by, const uint8_t* id, uint64_t seed) noexcept nogil:
    cdef Table* table = &by.key_index
    cdef uint32_t hashed = id_hash(id, seed)
    cdef uint32_t at = hashed & table.mask
    cdef uint32_t number
    cdef Keyed* keyed
    while table.slots[at].flow:
        number = table.slots[at].flow
        if table.slots[at].hash == hashed and memcmp(keyed_at(by, number).id, id, ID_BYTES) == 0:
            return number
        at = (at + 1) & table.mask
    if table.count >= by.most or items_left(&by.keys) == 0:
        return OTHERS
    number = arena_take(&by.keys)
    keyed = keyed_at(by, number)
    memcpy(keyed.id, id, ID_BYTES)
    keyed.hash = hashed
    table_insert(table, hashed, number)
    return number

cdef inline void hold_key(ByKey* by, uint32_t number) noexcept nogil:
    keyed_at(by, number).holders += 1

cdef inline void release_key(ByKey* by, uint32_t number) noexcept nogil:
    cdef Keyed* keyed = keyed_at(by, number)
    keyed.holders -= 1
    if keyed.holders == 0:
        table_remove(&by.key_index, keyed.hash, number)
        arena_give(&by.keys, number)

# ------------------------------------------------------------------------------------------------ tallies

# The number of a key's tally of an interval, which is made where there is none. `since`: the first slice of the clock's
# present run. Before: the arenas hold their reserves (by.pxd).
cdef inline uint32_t tally_of(ByKey* by, const Intervals* iv, uint32_t number, int64_t interval,
                              int64_t since) noexcept nogil:
    cdef Keyed* keyed = keyed_at(by, number)
    cdef Table* table = &by.tally_index
    cdef uint32_t* first = &by.interval_tallies[interval & iv.interval_mask]
    cdef uint32_t hashed, at, found
    cdef Tally* tally
    if keyed.recent and tally_at(by, keyed.recent).interval == interval:
        return keyed.recent
    hashed = _hashed(number, <uint64_t>interval)
    at = hashed & table.mask
    while table.slots[at].flow:
        found = table.slots[at].flow
        if (table.slots[at].hash == hashed and tally_at(by, found).keyed == number
                and tally_at(by, found).interval == interval):
            keyed.recent = found
            return found
        at = (at + 1) & table.mask
    found = arena_take(&by.tallies)
    tally = tally_at(by, found)
    tally.keyed = number
    tally.hash = hashed
    tally.interval = interval
    tally.filled = <uint32_t>max(since - interval * SLICES, 0)
    tally.next = first[0]
    first[0] = found
    table_insert(table, hashed, found)
    keyed.holders += 1
    keyed.recent = found
    return found

# A round trip of the side.
cdef inline void add_sample(ByKey* by, uint32_t number, int side, int64_t value) noexcept nogil:
    cdef Tally* tally = tally_at(by, number)
    cdef Table* table = &by.sample_index
    cdef uint32_t place = rtt_bucket(value) | <uint32_t>side << 31
    cdef uint32_t hashed = _hashed(number, place)
    cdef uint32_t at = hashed & table.mask
    cdef uint32_t found
    cdef Sample* sample
    tally.rtt_max[side] = max(value, tally.rtt_max[side])
    while table.slots[at].flow:
        sample = sample_at(by, table.slots[at].flow)
        if table.slots[at].hash == hashed and sample.tally == number and sample.place == place:
            sample.count += 1
            return
        at = (at + 1) & table.mask
    found = arena_take(&by.samples)
    sample = sample_at(by, found)
    sample.hash = hashed
    sample.tally = number
    sample.place = place
    sample.count = 1
    sample.next = tally.samples[side]
    tally.samples[side] = found
    table_insert(table, hashed, found)

cdef inline void _drop_samples(ByKey* by, uint32_t number) noexcept nogil:
    cdef uint32_t following
    while number:
        following = sample_at(by, number).next
        table_remove(&by.sample_index, sample_at(by, number).hash, number)
        arena_give(&by.samples, number)
        number = following

# An interval was told.
cdef inline void drop_tallies(ByKey* by, const Intervals* iv, int64_t interval) noexcept nogil:
    cdef uint32_t* first = &by.interval_tallies[interval & iv.interval_mask]
    cdef uint32_t number = first[0], following
    cdef Tally* tally
    cdef Keyed* keyed
    first[0] = 0
    while number:
        tally = tally_at(by, number)
        keyed = keyed_at(by, tally.keyed)
        following = tally.next
        _drop_samples(by, tally.samples[0])
        _drop_samples(by, tally.samples[1])
        table_remove(&by.tally_index, tally.hash, number)
        if keyed.recent == number:
            keyed.recent = 0
        release_key(by, tally.keyed)
        arena_give(&by.tallies, number)
        number = following

# ------------------------------------------------------------------------------------------------ gauges

# Up to the slice `end` of the tally's interval, the gauges were as they are.
cdef inline void fill_course(const Keyed* keyed, Tally* tally, int64_t end) noexcept nogil:
    cdef int peak
    while tally.filled < end:
        for peak in range(PEAKS):
            tally.course[peak][tally.filled] = keyed.gauges[peak_gauge(peak)]
        tally.filled += 1

cdef inline void add_face(int64_t* gauges, uint32_t face, int sign) noexcept nogil:
    cdef uint32_t first = face & 15, second = (face >> 4) & 15
    cdef int trait
    if first >= ST_SYN_SENT:
        gauges[first - ST_SYN_SENT] += sign
    if second >= ST_SYN_SENT:
        gauges[second - ST_SYN_SENT] += sign
    for trait in range(5):
        gauges[G_CONNECTIONS + trait] += sign * <int>((face >> (8 + trait)) & 1)

# A record of the key changed its face in the lowest open slice.
cdef inline void shift_gauges(Keyed* keyed, Tally* tally, int64_t slice_number, uint32_t before,
                              uint32_t after) noexcept nogil:
    fill_course(keyed, tally, slice_number - tally.interval * SLICES)
    add_face(keyed.gauges, before, -1)
    add_face(keyed.gauges, after, 1)

# A record of the key changed its face at effective time (0: it had, or has, none).
cdef inline void key_change(ByKey* by, Intervals* iv, uint32_t number, int64_t effective, int64_t since, uint32_t before,
                            uint32_t after) noexcept nogil:
    cdef int64_t slice_number
    cdef uint32_t tally, found
    cdef uint32_t* first
    cdef Change* change
    if before == after:
        return
    slice_number = interval_slice_at(iv, effective)
    tally = tally_of(by, iv, number, floor_div(slice_number, SLICES), since)
    if slice_number == iv.next_slice:
        shift_gauges(keyed_at(by, number), tally_at(by, tally), slice_number, before, after)
        return
    first = &by.slice_changes[slice_number & iv.slice_mask]
    found = arena_take(&by.changes)
    change = <Change*>arena_at(&by.changes, found)
    change.keyed = number
    change.before = <uint16_t>before
    change.after = <uint16_t>after
    change.next = first[0]
    first[0] = found

# Applies the changes of the lowest open slice, which is closed.
cdef inline void close_key_slice(ByKey* by, const Intervals* iv, int64_t since) noexcept nogil:
    cdef uint32_t* first = &by.slice_changes[iv.next_slice & iv.slice_mask]
    cdef int64_t interval = floor_div(iv.next_slice, SLICES)
    cdef uint32_t number = first[0], following
    cdef Change* change
    first[0] = 0
    while number:
        change = <Change*>arena_at(&by.changes, number)
        following = change.next
        shift_gauges(keyed_at(by, change.keyed), tally_at(by, tally_of(by, iv, change.keyed, interval, since)),
                     iv.next_slice, change.before, change.after)
        arena_give(&by.changes, number)
        number = following

# ------------------------------------------------------------------------------------------------ parts

cdef inline bint has_gauges(const Keyed* keyed) noexcept nogil:
    cdef int i
    for i in range(GAUGES):
        if keyed.gauges[i]:
            return True
    return False

# What a key has of an interval whose last closed slice is the one before `end`. Before: not parts_full.
cdef inline void put_key_part(const ByKey* by, Parts* parts, uint32_t number, int64_t epoch, int64_t interval,
                              bint complete, int64_t since, int64_t end) noexcept nogil:
    cdef const Keyed* keyed = keyed_at(by, number)
    cdef Part* part = part_next(parts)
    cdef Tally* tally
    cdef Tally none
    cdef uint32_t sample
    cdef int side
    if keyed.recent and tally_at(by, keyed.recent).interval == interval:
        tally = tally_at(by, keyed.recent)
    else:
        tally = &none
        memset(tally, 0, sizeof(Tally))
        tally.filled = <uint32_t>max(since - interval * SLICES, 0)
    fill_course(keyed, tally, end - interval * SLICES)
    memset(part, 0, sizeof(Part))
    part.epoch = epoch
    part.number = interval
    part.complete = complete
    memcpy(part.id, keyed.id, ID_BYTES)
    memcpy(part.gauges, keyed.gauges, sizeof(part.gauges))
    memcpy(part.course, tally.course, sizeof(part.course))
    memcpy(part.counts, tally.counts, sizeof(part.counts))
    for side in range(2):
        part.rtt_max[side] = tally.rtt_max[side]
        sample = tally.samples[side]
        while sample:
            part_bucket(parts, part, side, sample_at(by, sample).place & 0x7FFFFFFF, sample_at(by, sample).count)
            sample = sample_at(by, sample).next
