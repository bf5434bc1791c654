# The pcap format (draft-ietf-opsawg-pcap), as written since libpcap 0.4, and the variants that libpcap reads.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from synfin._core.types cimport PacketRef
from synfin.sources.frame cimport (
    FE_CAPTURED,
    FE_VERSION,
    FM_PCAP,
    FR_NEED,
    FR_PACKET,
    MAX_CAPTURED,
    MAX_CAPTURED_BUS,
    Framed,
    Framer,
    frame_consume,
    frame_fail,
    frame_view,
    load16,
    load32,
)

cdef enum:
    PCAP_HEADER = 24
    LEN_CAPTURED_FIRST = 0
    LEN_WIRE_FIRST = 1       # before version 2.3, and 543.0 (DG/UX)
    LEN_UNSURE = 2           # version 2.3: writers differ; the captured length is the smaller one


# Link types whose packets are larger than any network's: USB and D-Bus (231).
cdef inline uint32_t captured_bound(uint16_t link_type) noexcept nogil:
    if link_type in (186, 189, 220, 231, 249, 266, 288, 293, 294, 295):
        return MAX_CAPTURED_BUS
    return MAX_CAPTURED


# Is this the first word of a pcap file in the given byte order? OUT header_bytes, tick_ns.
cdef inline bint pcap_magic(uint32_t magic, uint32_t* header_bytes, uint32_t* tick_ns) noexcept nogil:
    header_bytes[0] = 16
    tick_ns[0] = 1000
    if magic == 0xA1B2C3D4u:
        return True
    if magic == 0xA1B23C4Du:
        tick_ns[0] = 1
        return True
    header_bytes[0] = 24     # Kuznetzov's patches: interface, protocol and packet type behind each record header
    return magic == 0xA1B2CD34u


# Reads the file header; magic and byte order are known.
cdef inline Framed pcap_start(Framer* f) noexcept nogil:
    cdef const uint8_t* h = frame_view(f, PCAP_HEADER)
    cdef uint32_t major, minor
    if h == NULL:
        return FR_NEED
    major = load16(h + 4, f.big_endian)
    minor = load16(h + 6, f.big_endian)
    if major < 2:
        return frame_fail(f, FE_VERSION, major, minor)
    f.lengths = LEN_CAPTURED_FIRST  # also where the version is unknown: all known writers since do so
    if (major == 2 and minor < 3) or major == 543:
        f.lengths = LEN_WIRE_FIRST
    elif major == 2 and minor == 3:
        f.lengths = LEN_UNSURE
    f.link_type = <uint16_t>load32(h + 20, f.big_endian)  # the upper half holds the length of frame check sequences
    f.max_captured = captured_bound(f.link_type)
    frame_consume(f, PCAP_HEADER)
    f.offset = PCAP_HEADER
    f.format = FM_PCAP
    return FR_PACKET


# 32-bit seconds and a 32-bit fraction end before 2107, well below TIME_MAX_NS.
cdef inline int64_t _time_of(const Framer* f, const uint8_t* h, bint big_endian) noexcept nogil:
    return <int64_t>load32(h, big_endian) * 1000000000 + <int64_t>load32(h + 4, big_endian) * f.tick_ns


cdef inline Framed pcap_next(Framer* f, PacketRef* out) noexcept nogil:
    cdef const uint8_t* h = frame_view(f, f.header_bytes)
    cdef uint32_t captured, wire
    cdef size_t total
    if h == NULL:
        return FR_NEED
    captured = load32(h + 8, f.big_endian)
    wire = load32(h + 12, f.big_endian)
    if f.lengths != LEN_CAPTURED_FIRST and (f.lengths == LEN_WIRE_FIRST or captured > wire):
        captured, wire = wire, captured
    if captured > f.max_captured:
        return frame_fail(f, FE_CAPTURED, captured, f.max_captured)
    total = <size_t>f.header_bytes + captured
    h = frame_view(f, total)
    if h == NULL:
        return FR_NEED
    out.data = h + f.header_bytes
    out.captured_len = captured
    out.wire_len = max(wire, captured)
    out.time_ns = out.stamp_ns = _time_of(f, h, f.big_endian)
    out.number = f.number + 1
    out.file_id = f.file_id
    out.interface_id = -1
    out.link_type = f.link_type
    out.vlan_tci = 0
    out.flags = 0
    frame_consume(f, total)
    f.number += 1
    f.offset += total
    return FR_PACKET


# The usual stretch: records that lie whole in the chunk, one after another, with timestamps in [low_ns, high_ns). Gives
# out as many as there are, at most `room`, each but for its clock and tap; stops before the first that is not so, which
# pcap_next takes. Before: the lengths stand in the usual order, and nothing is carried.
cdef inline uint32_t pcap_stretch(Framer* f, bint big_endian, int64_t low_ns, int64_t high_ns, PacketRef* out,
                                  uint32_t room) noexcept nogil:
    cdef const uint8_t* h = f.p
    cdef const uint8_t* end = f.end
    cdef size_t header = f.header_bytes
    cdef uint32_t count = 0, captured, wire
    cdef int64_t time_ns
    cdef PacketRef* p
    while count < room and <size_t>(end - h) >= header:
        captured = load32(h + 8, big_endian)
        time_ns = _time_of(f, h, big_endian)
        if (captured > f.max_captured or <size_t>(end - h) - header < captured
                or not low_ns <= time_ns < high_ns):
            break
        wire = load32(h + 12, big_endian)
        p = &out[count]
        p.data = h + header
        p.captured_len = captured
        p.wire_len = max(wire, captured)
        p.time_ns = p.stamp_ns = time_ns
        count += 1
        p.number = f.number + count
        p.file_id = f.file_id
        p.interface_id = -1
        p.link_type = f.link_type
        p.vlan_tci = 0
        p.flags = 0
        h += header + captured
    f.number += count
    f.offset += h - f.p
    f.p = h
    return count
