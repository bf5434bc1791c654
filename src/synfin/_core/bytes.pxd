# Reading integers from bytes, and the cursor that every decoding step moves. Nothing here checks a length: the caller
# compares `captured` first. Read types.pxd before.
from libc.stdint cimport uint8_t, uint16_t, uint32_t

# The part of a packet that is left. A step reads the header at `at` and advances past it.
cdef struct Cursor:
    const uint8_t* at
    uint32_t captured        # bytes from `at` on that may be read; never above `length`
    uint32_t length          # bytes from `at` on that were sent: by the wire length, inside IP by the IP header
    const uint8_t* ip        # the IP header passed last
    uint8_t protocol         # what stands behind it and its extension headers
    uint8_t marks            # CU_*, of that IP header

cdef enum:
    CU_FRAGMENT = 1          # (of) the first of several fragments: `length` is its own, headers inside may announce more
    CU_ROUTED = 2            # a routing header still names further hops: the destination is not the final one


cdef inline uint16_t be16(const uint8_t* p) noexcept nogil:
    return <uint16_t>((<uint32_t>p[0] << 8) | p[1])


cdef inline uint16_t le16(const uint8_t* p) noexcept nogil:
    return <uint16_t>((<uint32_t>p[1] << 8) | p[0])


cdef inline uint32_t le32(const uint8_t* p) noexcept nogil:
    return (<uint32_t>p[3] << 24) | (<uint32_t>p[2] << 16) | (<uint32_t>p[1] << 8) | p[0]


cdef inline uint32_t be32(const uint8_t* p) noexcept nogil:
    return (<uint32_t>p[0] << 24) | (<uint32_t>p[1] << 16) | (<uint32_t>p[2] << 8) | p[3]


cdef inline void put_be32(uint8_t* p, uint32_t value) noexcept nogil:
    p[0] = value >> 24
    p[1] = (value >> 16) & 0xFF
    p[2] = (value >> 8) & 0xFF
    p[3] = value & 0xFF


# Needs size <= captured.
cdef inline void advance(Cursor* cursor, uint32_t size) noexcept nogil:
    cursor.at += size
    cursor.captured -= size
    cursor.length -= size


# What follows the announced length is padding, captured or not.
cdef inline void announce(Cursor* cursor, uint32_t length) noexcept nogil:
    cursor.length = length
    if cursor.captured > length:
        cursor.captured = length
