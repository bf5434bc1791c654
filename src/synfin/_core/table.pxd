# An index of things by a hash: pairs (hash, number) with open addressing, a stated longest probe, no tombstones. It grows
# between batches only. What has the hash, its owner compares.
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free

cdef extern from "core.h" nogil:
    void* zeroed_block(size_t size)

cdef enum:
    PROBE_MAX = 128          # a lookup looks at no more slots than this: an insertion that would need more has the
                             # table doubled before the next batch

# One entry: the hash again, so that a probe touches a thing only where it very likely is the one.
cdef struct Slot:
    uint32_t hash
    uint32_t flow            # the thing's number; 0: empty

cdef struct Table:
    Slot* slots
    uint32_t mask
    uint32_t count
    bint crowded             # an insertion went beyond PROBE_MAX

cdef inline uint64_t table_bytes(const Table* table) noexcept nogil:
    return (<uint64_t>table.mask + 1) * sizeof(Slot) if table.slots != NULL else 0

# Before: the table has an empty slot and does not hold the thing.
cdef inline void table_insert(Table* table, uint32_t hash, uint32_t number) noexcept nogil:
    cdef uint32_t at = hash & table.mask
    cdef uint32_t probes = 1
    while table.slots[at].flow:
        at = (at + 1) & table.mask
        probes += 1
    table.slots[at].hash = hash
    table.slots[at].flow = number
    table.count += 1
    if probes > PROBE_MAX:
        table.crowded = True

# Removes a thing and closes the gap behind it, so that probes stay short without tombstones: each following entry
# moves back unless it would come to stand before its own home slot.
cdef inline void table_remove(Table* table, uint32_t hash, uint32_t number) noexcept nogil:
    cdef uint32_t hole = hash & table.mask
    cdef uint32_t at, home
    while table.slots[hole].flow != number:
        hole = (hole + 1) & table.mask
    at = hole
    while True:
        at = (at + 1) & table.mask
        if table.slots[at].flow == 0:
            break
        home = table.slots[at].hash & table.mask
        if ((at - home) & table.mask) >= ((at - hole) & table.mask):
            table.slots[hole] = table.slots[at]
            hole = at
    table.slots[hole].flow = 0
    table.count -= 1

# Moves the index into `slots` slots; it touches none of the things, so a million entries take milliseconds. Returns -1
# without memory.
cdef inline int grow_table(Table* table, uint64_t slots) noexcept nogil:
    cdef Slot* old = table.slots
    cdef uint64_t i, count = <uint64_t>table.mask + 1 if old != NULL else 0
    cdef uint32_t at
    cdef Slot* fresh = <Slot*>zeroed_block(slots * sizeof(Slot))
    if fresh == NULL:
        return -1
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

# Room for `more` things beside those that are there. Returns -1 without memory.
cdef inline int table_reserve(Table* table, uint64_t more) noexcept nogil:
    cdef uint64_t has = <uint64_t>table.mask + 1 if table.slots != NULL else 0
    cdef uint64_t slots = 2 * has if table.crowded else has if has else 1024
    while table.count + more > slots * 3 // 4:
        slots *= 2
    return grow_table(table, slots) if slots != has else 0
