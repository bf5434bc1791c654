# Records out of chunks of bytes: what pcap and pcapng share. A record that lies whole in the chunk is read in place; one
# that crosses a border is put together in the carry buffer. Nothing that was handed out moves or changes until
# frame_stash, which the owner calls between two batches only.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from synfin._core.bytes cimport be16, be32, le16, le32

cdef enum Framed:
    FR_NEED = 0              # the chunk is used up
    FR_PACKET = 1
    FR_INTERFACE = 2         # a new interface wants its number in the run (name, name_len)
    FR_END = 3
    FR_BROKEN = 4            # see error and offset

cdef enum FrameError:
    FE_NONE = 0
    FE_EMPTY = 1             # no bytes at all
    FE_MAGIC = 2             # neither pcap nor pcapng
    FE_CUT = 3               # the bytes end inside a record
    FE_VERSION = 4           # a, b: major and minor version
    FE_CAPTURED = 5          # a: captured length, b: the most that is plausible
    FE_BLOCK_LENGTH = 6      # a: block length
    FE_BLOCK_TAIL = 7        # a, b: length before and after the block
    FE_BLOCK_SHORT = 8       # a: block type, b: its length
    FE_BYTE_ORDER = 9        # a: byte-order magic
    FE_INTERFACE = 10        # a: interface number, b: how many the section has
    FE_OPTION = 11           # an option of an interface runs over its block
    FE_INTERFACES = 12       # a: more interfaces than this in one section
    FE_MEMORY = 13
    FE_STREAM = 14           # the reader below failed (decompression, input error); it knows the reason

cdef enum Format:
    FM_UNKNOWN = 0
    FM_PCAP = 1
    FM_PCAPNG = 2

cdef enum:
    MAX_RECORD = 1 << 28     # bytes; a longer record is taken for corruption
    MAX_CAPTURED = 262144    # libpcap's and Wireshark's bound for a packet of an ordinary link type
    MAX_CAPTURED_BUS = 1 << 27  # and for USB and D-Bus
    MAX_INTERFACES = 65536
    MAX_STATISTICS = 1 << 16  # bytes; a longer block of statistics is passed over

cdef extern from *:
    """
    #define SYNFIN_DROPS_MAX (UINT64_C(1) << 62)
    """
    # No count of lost packets; writers say "unknown" by all ones. Sums of two of them fit.
    const uint64_t DROPS_MAX "SYNFIN_DROPS_MAX"

# A capture interface of a pcapng section.
cdef struct Interface:
    int64_t offset_s         # if_tsoffset
    uint64_t drops           # packets that were lost on it, as far as its statistics say
    uint32_t snaplen         # 0: no limit
    int32_t run_id           # index in the run's list of interfaces
    uint16_t link_type
    uint8_t resolution       # if_tsresol as in the file

cdef struct Framer:
    const uint8_t* p         # next byte of the chunk
    const uint8_t* end
    uint64_t offset          # of the record at hand, from the start of the (decompressed) capture
    uint8_t* carry           # the record's first bytes, out of earlier chunks
    size_t carry_len
    size_t carry_capacity
    int64_t number           # packets so far
    int64_t clamped          # of them, timestamps before 1970 or after 2116, moved to that bound
    int32_t file_id
    Format format
    bint big_endian
    bint finished            # no chunk follows
    FrameError error
    uint64_t error_a
    uint64_t error_b
    # pcap
    uint32_t header_bytes    # of each record
    uint32_t tick_ns         # 1000 or 1
    uint32_t max_captured
    uint16_t link_type
    uint8_t lengths          # LEN_*: which of the two lengths comes first
    # pcapng
    Interface* interfaces
    uint32_t interface_count
    uint32_t interface_capacity
    uint32_t skip_block      # length of the block that is being passed over, else 0
    uint32_t skip_left       # its bytes before the closing length
    uint64_t drops           # packets that were lost on all interfaces of all sections, at most DROPS_MAX
    bint knows_drops         # False: no statistics so far that count them
    const uint8_t* name      # of the newest interface; borrowed like a packet
    uint32_t name_len


cdef inline uint16_t load16(const uint8_t* p, bint big_endian) noexcept nogil:
    return be16(p) if big_endian else le16(p)


cdef inline uint32_t load32(const uint8_t* p, bint big_endian) noexcept nogil:
    return be32(p) if big_endian else le32(p)


cdef inline uint64_t load64(const uint8_t* p, bint big_endian) noexcept nogil:
    cdef uint64_t first = load32(p, big_endian), second = load32(p + 4, big_endian)
    return (first << 32) | second if big_endian else (second << 32) | first


cdef inline Framed frame_fail(Framer* f, FrameError error, uint64_t a, uint64_t b) noexcept nogil:
    f.error = error
    f.error_a = a
    f.error_b = b
    return FR_BROKEN


# Appends bytes to the carry buffer, which grows with what has come and not with what a header announces.
cdef inline bint _carry_add(Framer* f, size_t count) noexcept nogil:
    cdef size_t capacity = f.carry_capacity
    cdef void* grown
    if count == 0:
        return True  # there may be no chunk, and memcpy takes no NULL
    if f.carry_len + count > capacity:
        capacity = max(f.carry_len + count, 2 * capacity, <size_t>4096)
        grown = realloc(f.carry, capacity)
        if grown == NULL:
            frame_fail(f, FE_MEMORY, 0, 0)
            return False
        f.carry = <uint8_t*>grown
        f.carry_capacity = capacity
    memcpy(f.carry + f.carry_len, f.p, count)
    f.carry_len += count
    f.p += count
    return True


# The first `count` bytes of the record at hand, or NULL while they have not all come. IN count: at most the record's
# length.
cdef inline const uint8_t* frame_view(Framer* f, size_t count) noexcept nogil:
    cdef size_t here = f.end - f.p
    if f.carry_len == 0:
        return f.p if here >= count else NULL
    if f.carry_len < count and not _carry_add(f, min(count - f.carry_len, here)):
        return NULL
    return f.carry if f.carry_len >= count else NULL


# Passes over the `count` bytes that frame_view has just shown.
cdef inline void frame_consume(Framer* f, size_t count) noexcept nogil:
    if f.carry_len:
        f.carry_len = 0
    else:
        f.p += count


# Before the chunk goes: keeps what is left of it. What was handed out before is void afterwards.
cdef inline void frame_stash(Framer* f) noexcept nogil:
    if f.end > f.p:
        _carry_add(f, f.end - f.p)
    f.p = f.end = NULL


cdef inline void frame_free(Framer* f) noexcept nogil:
    free(f.carry)
    free(f.interfaces)
    f.carry = NULL
    f.interfaces = NULL
