# The pcapng format (draft-ietf-opsawg-pcapng). Blocks that hold no packet, no interface and no statistics are passed over
# without being put together, so their size costs no memory.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport realloc

from synfin._core.types cimport PacketRef
from synfin.sources.clock cimport PF_UNTIMED, TIME_MAX_NS
from synfin.sources.frame cimport (
    DROPS_MAX,
    FE_BLOCK_LENGTH,
    FE_BLOCK_SHORT,
    FE_BLOCK_TAIL,
    FE_BYTE_ORDER,
    FE_CAPTURED,
    FE_INTERFACE,
    FE_INTERFACES,
    FE_MEMORY,
    FE_OPTION,
    FE_VERSION,
    FM_PCAPNG,
    FR_INTERFACE,
    FR_NEED,
    FR_PACKET,
    MAX_INTERFACES,
    MAX_RECORD,
    MAX_STATISTICS,
    Framed,
    Framer,
    Interface,
    frame_consume,
    frame_fail,
    frame_view,
    load16,
    load32,
    load64,
)
from synfin.sources.pcap cimport captured_bound

cdef extern from *:
    """
    typedef unsigned __int128 synfin_u128;
    """
    ctypedef unsigned long long u128 "synfin_u128"

cdef enum:
    BT_SECTION = 0x0A0D0D0A
    BT_INTERFACE = 1
    BT_PACKET = 2            # obsolete, still in old captures
    BT_SIMPLE = 3
    BT_STATISTICS = 5
    BT_ENHANCED = 6
    OPT_END = 0
    OPT_IF_NAME = 2
    OPT_IF_TSRESOL = 9
    OPT_IF_TSOFFSET = 14
    OPT_ISB_IFDROP = 5
    OPT_ISB_OSDROP = 7


cdef inline uint64_t _power10(uint32_t n) noexcept nogil:
    # IN n: at most 19.
    cdef uint64_t value = 1
    cdef uint32_t _i
    for _i in range(n):
        value *= 10
    return value


# Nanoseconds since 1970 of a timestamp in units of the interface's resolution (section 4.2: 10 to the minus n, or with
# the top bit 2 to the minus n). Finer units are rounded down; the result is kept between 1970 and 2116.
cdef inline int64_t pcapng_time(Framer* f, const Interface* face, uint64_t stamp) noexcept nogil:
    cdef uint32_t power = face.resolution & 0x7F
    cdef u128 ns
    cdef u128 limit = TIME_MAX_NS
    cdef uint64_t offset = <uint64_t>face.offset_s if face.offset_s >= 0 else 0 - <uint64_t>face.offset_s
    if face.resolution == 6:
        ns = <u128>stamp * 1000
    elif face.resolution == 9:
        ns = stamp
    elif face.resolution & 0x80:
        ns = (<u128>stamp * 1000000000) >> power
    elif power <= 9:
        ns = <u128>stamp * _power10(9 - power)
    else:
        ns = stamp // _power10(power - 9) if power - 9 <= 19 else 0
    if face.offset_s >= 0:
        ns += <u128>offset * 1000000000
    elif ns >= <u128>offset * 1000000000:
        ns -= <u128>offset * 1000000000
    else:
        f.clamped += 1
        ns = 0
    if ns > limit:
        f.clamped += 1
        ns = limit
    return <int64_t>ns


# Bytes that a block takes. Lengths are multiples of 4, but early writers announced them without the padding.
cdef inline uint32_t _padded(uint32_t length) noexcept nogil:
    return (length + 3) & ~<uint32_t>3


# A section header: sets the byte order and forgets the interfaces. OUT length of the block.
cdef inline Framed _section(Framer* f, uint32_t* length) noexcept nogil:
    cdef const uint8_t* b = frame_view(f, 12)
    cdef uint32_t major, minor, mark
    if b == NULL:
        return FR_NEED
    mark = load32(b + 8, True)
    if mark != 0x1A2B3C4Du and mark != 0x4D3C2B1Au:
        return frame_fail(f, FE_BYTE_ORDER, mark, 0)
    f.big_endian = mark == 0x1A2B3C4Du
    length[0] = load32(b + 4, f.big_endian)
    if length[0] < 28:
        return frame_fail(f, FE_BLOCK_SHORT, BT_SECTION, length[0])
    b = frame_view(f, 16)
    if b == NULL:
        return FR_NEED
    major = load16(b + 12, f.big_endian)
    minor = load16(b + 14, f.big_endian)
    if major != 1 or (minor != 0 and minor != 2):  # 1.2 was written by mistake and means 1.0
        return frame_fail(f, FE_VERSION, major, minor)
    f.interface_count = 0
    return FR_PACKET


# One option of a block.
cdef struct Option:
    uint32_t code
    uint32_t length
    const uint8_t* value     # `length` bytes

cdef enum:
    OP_NONE = 0              # no option is left
    OP_READ = 1
    OP_OVERRUN = 2           # it runs over its block

# Reads the option at b[0] and passes over it (section 3.5). IN end: of the block's options.
cdef inline int _next_option(const Framer* f, const uint8_t** b, const uint8_t* end, Option* option) noexcept nogil:
    if end - b[0] < 4:
        return OP_NONE
    option.code = load16(b[0], f.big_endian)
    option.length = load16(b[0] + 2, f.big_endian)
    option.value = b[0] + 4
    if option.code == OPT_END:
        return OP_NONE
    if option.length > <size_t>(end - option.value):
        return OP_OVERRUN
    b[0] = option.value + min(<size_t>_padded(option.length), <size_t>(end - option.value))
    return OP_READ


# An interface description. IN b: the whole block of `size` bytes.
cdef inline Framed _interface(Framer* f, const uint8_t* b, uint32_t size) noexcept nogil:
    cdef const uint8_t* end = b + size - 4
    cdef Interface* face
    cdef void* grown
    cdef Option option
    cdef int found
    if f.interface_count == MAX_INTERFACES:
        return frame_fail(f, FE_INTERFACES, MAX_INTERFACES, 0)
    if f.interface_count == f.interface_capacity:
        grown = realloc(f.interfaces, (2 * f.interface_capacity + 4) * sizeof(Interface))
        if grown == NULL:
            return frame_fail(f, FE_MEMORY, 0, 0)
        f.interfaces = <Interface*>grown
        f.interface_capacity = 2 * f.interface_capacity + 4
    face = &f.interfaces[f.interface_count]
    face.link_type = load16(b + 8, f.big_endian)
    face.snaplen = load32(b + 12, f.big_endian)
    face.resolution = 6
    face.offset_s = 0
    face.drops = 0
    face.run_id = -1
    f.name = NULL
    f.name_len = 0
    b += 16
    found = _next_option(f, &b, end, &option)
    while found == OP_READ:
        if option.code == OPT_IF_TSRESOL and option.length == 1:
            face.resolution = option.value[0]
        elif option.code == OPT_IF_TSOFFSET and option.length == 8:
            face.offset_s = <int64_t>load64(option.value, f.big_endian)
        elif option.code == OPT_IF_NAME:
            f.name = option.value
            f.name_len = option.length
        found = _next_option(f, &b, end, &option)
    if found == OP_OVERRUN:
        return frame_fail(f, FE_OPTION, option.code, option.length)
    f.interface_count += 1
    return FR_INTERFACE


# Statistics of an interface (section 4.6): packets lost by the interface and by the operating system. Counts run from the
# beginning of the capture, so the last block of an interface holds them all. Statistics that contradict themselves are
# passed over: no packet depends on them. IN b: the whole block of `size` bytes.
cdef inline void _statistics(Framer* f, const uint8_t* b, uint32_t size) noexcept nogil:
    cdef const uint8_t* end = b + size - 4
    cdef uint32_t number = load32(b + 8, f.big_endian)
    cdef uint64_t count, by_interface = 0, by_system = 0
    cdef bint known = False
    cdef Option option
    cdef int found
    cdef Interface* face
    if number >= f.interface_count:
        return
    face = &f.interfaces[number]
    b += 20
    found = _next_option(f, &b, end, &option)
    while found == OP_READ:
        if option.length == 8 and (option.code == OPT_ISB_IFDROP or option.code == OPT_ISB_OSDROP):
            count = load64(option.value, f.big_endian)
            if count <= DROPS_MAX:
                known = True
                if option.code == OPT_ISB_IFDROP:
                    by_interface = count
                else:
                    by_system = count
        found = _next_option(f, &b, end, &option)
    if found == OP_OVERRUN or not known:
        return
    f.knows_drops = True
    count = by_interface + by_system
    if count > face.drops:
        f.drops += min(count - face.drops, DROPS_MAX - f.drops)
        face.drops = count


# A packet of any of the three block types. IN b: the whole block of `size` bytes.
cdef inline Framed _packet(Framer* f, const uint8_t* b, uint32_t kind, uint32_t size, PacketRef* out) noexcept nogil:
    cdef uint32_t number = 0, header = 28, captured, wire
    cdef uint64_t stamp = 0
    cdef Interface* face
    if kind == BT_SIMPLE:
        header = 12
    elif kind == BT_ENHANCED:
        number = load32(b + 8, f.big_endian)
    else:
        number = load16(b + 8, f.big_endian)
    if number >= f.interface_count:
        return frame_fail(f, FE_INTERFACE, number, f.interface_count)
    face = &f.interfaces[number]
    if kind == BT_SIMPLE:
        wire = load32(b + 8, f.big_endian)
        captured = min(wire, size - 16)
        if face.snaplen and face.snaplen < captured:
            captured = face.snaplen
    else:
        stamp = (<uint64_t>load32(b + 12, f.big_endian) << 32) | load32(b + 16, f.big_endian)
        captured = load32(b + 20, f.big_endian)
        wire = load32(b + 24, f.big_endian)
        if captured > size - 32:
            return frame_fail(f, FE_CAPTURED, captured, size - 32)
    if captured > captured_bound(face.link_type):
        return frame_fail(f, FE_CAPTURED, captured, captured_bound(face.link_type))
    f.number += 1
    out.data = b + header
    out.captured_len = captured
    out.wire_len = max(wire, captured)
    out.time_ns = 0 if kind == BT_SIMPLE else pcapng_time(f, face, stamp)
    out.stamp_ns = out.time_ns
    out.number = f.number
    out.file_id = f.file_id
    out.interface_id = face.run_id
    out.link_type = face.link_type
    out.vlan_tci = 0
    out.flags = PF_UNTIMED if kind == BT_SIMPLE else 0
    return FR_PACKET


# Goes on passing over a block; FR_PACKET when it is behind us.
cdef inline Framed _skip(Framer* f) noexcept nogil:
    cdef const uint8_t* b
    cdef size_t step = min(<size_t>f.skip_left, <size_t>(f.end - f.p))
    cdef uint32_t tail
    f.p += step
    f.skip_left -= <uint32_t>step
    if f.skip_left:
        return FR_NEED
    b = frame_view(f, 4)
    if b == NULL:
        return FR_NEED
    tail = load32(b, f.big_endian)
    if tail != f.skip_block:
        return frame_fail(f, FE_BLOCK_TAIL, f.skip_block, tail)
    frame_consume(f, 4)
    f.offset += _padded(f.skip_block)
    f.skip_block = 0
    return FR_PACKET


# The fewest bytes of a block that is read.
cdef inline uint32_t _least(uint32_t kind) noexcept nogil:
    if kind == BT_ENHANCED or kind == BT_PACKET:
        return 32
    return 16 if kind == BT_SIMPLE else 20


# Must the block be put together? Statistics of an impossible size are not.
cdef inline bint _is_read(uint32_t kind, uint32_t length) noexcept nogil:
    if kind == BT_STATISTICS:
        return 24 <= length <= MAX_STATISTICS
    return kind in (BT_INTERFACE, BT_PACKET, BT_SIMPLE, BT_ENHANCED)


cdef inline Framed pcapng_next(Framer* f, PacketRef* out) noexcept nogil:
    cdef const uint8_t* b
    cdef uint32_t kind, length, size, tail, seen
    cdef Framed result = FR_NEED
    f.format = FM_PCAPNG
    while True:
        if f.skip_block and _skip(f) != FR_PACKET:
            return FR_NEED
        b = frame_view(f, 8)
        if b == NULL:
            return FR_NEED
        kind = load32(b, f.big_endian)
        length = load32(b + 4, f.big_endian)
        if kind == BT_SECTION:
            result = _section(f, &length)
            if result != FR_PACKET:
                return result
        if length < 12 or length > MAX_RECORD:
            return frame_fail(f, FE_BLOCK_LENGTH, length, 0)
        size = _padded(length)
        if not _is_read(kind, length):
            seen = 16 if kind == BT_SECTION else 8
            frame_consume(f, seen)
            f.skip_block = length
            f.skip_left = size - seen - 4
            continue
        if length < _least(kind):
            return frame_fail(f, FE_BLOCK_SHORT, kind, length)
        b = frame_view(f, size)
        if b == NULL:
            return FR_NEED
        tail = load32(b + size - 4, f.big_endian)
        if tail != length:
            return frame_fail(f, FE_BLOCK_TAIL, length, tail)
        if kind == BT_STATISTICS:
            _statistics(f, b, size)
        else:
            result = _interface(f, b, size) if kind == BT_INTERFACE else _packet(f, b, kind, size, out)
            if f.error:
                return result
        frame_consume(f, size)
        f.offset += size
        if kind != BT_STATISTICS:
            return result
