# The TCP header (RFC 9293 section 3.1). Options are only located here; tcp_options and tcp_timestamps read them where
# somebody asks. What a segment means is the tracker's.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from synfin._core.bytes cimport CU_FRAGMENT, Cursor, be16, be32
from synfin._core.types cimport (
    OPT_MPTCP, OPT_MSS, OPT_SACK_PERMITTED, OPT_TIMESTAMPS, OPT_WINDOW_SCALE, TH_ACK, VD_BAD_TCP, VD_FRAGMENT,
    VD_HEADER_CUT, VD_SEGMENT, Options, Segment,
)

cdef enum:
    KIND_END = 0
    KIND_NOP = 1
    KIND_MSS = 2
    KIND_WINDOW_SCALE = 3
    KIND_SACK_PERMITTED = 4
    KIND_TIMESTAMPS = 8
    KIND_MPTCP = 30
    KIND_FAST_OPEN = 34
    KIND_EXPERIMENT = 254
    FAST_OPEN_MAGIC = 0xF989     # experiment identifier of Fast Open before it had a kind (RFC 7413 appendix A)
    TIMESTAMPS_ALIGNED = 0x0101080A  # NOP, NOP, kind 8, length 10: as most systems send it


# The cursor stands before a TCP header and is bounded by IP's length. Options may be cut by the snap length, the 20
# fixed bytes may not. A first fragment too short for the header leaves the rest of it to a later one.
cdef inline int tcp(const Cursor* cursor, Segment* segment) noexcept nogil:
    cdef const uint8_t* p = cursor.at
    cdef uint32_t size
    if cursor.length < 20:
        return VD_FRAGMENT if cursor.marks & CU_FRAGMENT else VD_BAD_TCP
    if cursor.captured < 20:
        return VD_HEADER_CUT
    size = (p[12] >> 4) * 4
    if size < 20 or size > cursor.length:
        return VD_FRAGMENT if size >= 20 and cursor.marks & CU_FRAGMENT else VD_BAD_TCP
    segment.src_port = be16(p)
    segment.dst_port = be16(p + 2)
    segment.seq = be32(p + 4)
    segment.flags = be16(p + 12) & 0x01FF
    segment.ack = be32(p + 8) if segment.flags & TH_ACK else 0
    segment.window = be16(p + 14)
    segment.payload_bytes = cursor.length - size
    segment.options = p + 20
    segment.options_len = <uint16_t>((size if size < cursor.captured else cursor.captured) - 20)
    return VD_SEGMENT


# RFC 7413 section 4.1.1: no cookie asks for one; a cookie has 4 to 16 bytes, an even number.
cdef inline uint8_t fast_open_kind(uint32_t cookie_bytes) noexcept nogil:
    if cookie_bytes == 0:
        return 1
    return 2 if 4 <= cookie_bytes <= 16 and not cookie_bytes & 1 else 0


# One option, whole within the captured bytes: p[0] its kind, `size` its length with the two bytes of kind and length.
cdef inline void one_option(const uint8_t* p, uint32_t size, Options* options) noexcept nogil:
    cdef uint8_t kind = p[0]
    if kind == KIND_MSS and size == 4:
        options.has |= OPT_MSS
        options.mss = be16(p + 2)
    elif kind == KIND_WINDOW_SCALE and size == 3:
        options.has |= OPT_WINDOW_SCALE
        options.window_scale = p[2]
    elif kind == KIND_SACK_PERMITTED and size == 2:
        options.has |= OPT_SACK_PERMITTED
    elif kind == KIND_TIMESTAMPS and size == 10:
        options.has |= OPT_TIMESTAMPS
        options.ts_val = be32(p + 2)
        options.ts_ecr = be32(p + 6)
    elif kind == KIND_MPTCP and size >= 3:
        options.has |= OPT_MPTCP
    elif kind == KIND_FAST_OPEN:
        options.fast_open = fast_open_kind(size - 2) or options.fast_open
    elif kind == KIND_EXPERIMENT and size >= 4 and be16(p + 2) == FAST_OPEN_MAGIC:
        options.fast_open = fast_open_kind(size - 4) or options.fast_open


# All options of a segment. An option with a length below 2 or past the captured options ends the walk uncounted, as
# nothing says where the next one begins. An option with a length that its kind does not have counts in `kinds` only; of
# equal options the last counts.
cdef inline void tcp_options(const Segment* segment, Options* options) noexcept nogil:
    cdef const uint8_t* p = segment.options
    cdef uint32_t left = segment.options_len, size
    memset(options, 0, sizeof(Options))
    while left > 0:
        size = 1
        if p[0] > KIND_NOP:
            if left < 2:
                return
            size = p[1]
            if size < 2 or size > left:
                return
            one_option(p, size, options)
        if p[0] <= 62:
            options.kinds |= <uint64_t>1 << p[0]
        if p[0] == KIND_END:
            return
        p += size
        left -= size


# The timestamps option alone, for every segment of a connection that uses it. False: val and ecr are not set.
cdef inline bint tcp_timestamps(const Segment* segment, uint32_t* val, uint32_t* ecr) noexcept nogil:
    cdef Options options
    if segment.options_len == 12 and be32(segment.options) == TIMESTAMPS_ALIGNED:
        val[0] = be32(segment.options + 4)
        ecr[0] = be32(segment.options + 8)
        return True
    if segment.options_len < 10:
        return False
    tcp_options(segment, &options)
    val[0] = options.ts_val
    ecr[0] = options.ts_ecr
    return options.has & OPT_TIMESTAMPS
