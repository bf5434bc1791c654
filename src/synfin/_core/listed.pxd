# Services that somebody lists, for metrics: what the whole run so far has of each, and of no other. A gauge is as the
# last packet left it, a count only grows. The list is short and fixed for the run; a record's service is looked up in it
# when the record begins and when it is turned round (by.pxd).
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcmp

from synfin._core.intervals cimport COUNTS, GAUGES
from synfin._core.keyed cimport ID_BYTES, add_face

cdef struct Listed:
    uint8_t id[ID_BYTES]     # as a key's, of a service
    int64_t gauges[GAUGES]
    int64_t counts[COUNTS]

cdef struct Listing:
    Listed* services         # in the order of their ids
    uint32_t count

# The number of a service, from 1; 0: it is not listed.
cdef inline uint32_t find_listed(const Listing* listing, const uint8_t* id) noexcept nogil:
    cdef uint32_t low = 0, high = listing.count, middle
    cdef int order
    while low < high:
        middle = (low + high) // 2
        order = memcmp(id, listing.services[middle].id, ID_BYTES)
        if order == 0:
            return middle + 1
        if order < 0:
            high = middle
        else:
            low = middle + 1
    return 0

# A record of the service begins to have a face, or loses it (sign -1). `number` 0: of one that is not listed.
cdef inline void listed_face(Listing* listing, uint32_t number, uint32_t face, int sign) noexcept nogil:
    if number:
        add_face(listing.services[number - 1].gauges, face, sign)
