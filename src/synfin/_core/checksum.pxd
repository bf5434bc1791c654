# Internet checksums (RFC 1071) of one segment: its IPv4 header's and TCP's (RFC 9293 section 3.1). Only where asked for.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from synfin._core.bytes cimport CU_FRAGMENT, CU_ROUTED, Cursor, be16
from synfin._core.types cimport Segment


# The sum of big-endian 16-bit words, an odd last byte padded with 0. Bytes are below 2^32, so it cannot wrap.
cdef inline uint64_t sum_words(const uint8_t* p, uint32_t size) noexcept nogil:
    cdef uint64_t total = 0
    cdef uint32_t i = 0
    while i + 1 < size:
        total += be16(p + i)
        i += 2
    if i < size:
        total += <uint32_t>p[i] << 8
    return total


# A sum with the checksum in it is right where it folds to all ones.
cdef inline bint holds(uint64_t total) noexcept nogil:
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total == 0xFFFF


# Before: decode made the segment, the cursor stands before its TCP header. What cannot be verified counts as right: cut
# packets, fragments, and a routing header whose last hop is still to come.
cdef inline bint checksums_hold(const Cursor* cursor, const Segment* segment) noexcept nogil:
    cdef uint32_t width = 4 if segment.ip_version == 4 else 16
    if segment.ip_version == 4 and not holds(sum_words(cursor.ip, (<uint32_t>cursor.ip[0] & 15) * 4)):
        return False
    if cursor.captured < cursor.length or cursor.marks & (CU_FRAGMENT | CU_ROUTED):
        return True
    return holds(sum_words(segment.src, width) + sum_words(segment.dst, width) + 6 + (cursor.length >> 16)
                 + (cursor.length & 0xFFFF) + sum_words(cursor.at, cursor.length))
