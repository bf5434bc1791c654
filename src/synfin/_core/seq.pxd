# Sequence numbers compare modulo 2^32 (RFC 9293 section 3.4). Never write < on them.
from libc.stdint cimport int32_t, uint32_t

# How far b lies above a: negative when below. Valid while the two are less than 2^31 apart.
cdef inline int32_t seq_distance(uint32_t a, uint32_t b) noexcept nogil:
    return <int32_t>(b - a)

cdef inline bint seq_lt(uint32_t a, uint32_t b) noexcept nogil:
    return <int32_t>(a - b) < 0

cdef inline bint seq_le(uint32_t a, uint32_t b) noexcept nogil:
    return <int32_t>(a - b) <= 0

cdef inline bint seq_gt(uint32_t a, uint32_t b) noexcept nogil:
    return <int32_t>(a - b) > 0

cdef inline bint seq_ge(uint32_t a, uint32_t b) noexcept nogil:
    return <int32_t>(a - b) >= 0
