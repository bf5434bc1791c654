# One packet to one TCP segment: link, IP, tunnels and TCP glued. Reads no byte beyond captured_len and allocates nothing.
from libc.stdint cimport uint32_t
from libc.string cimport memcmp

from synfin._core.bytes cimport Cursor
from synfin._core.checksum cimport checksums_hold
from synfin._core.icmp cimport read_quote
from synfin._core.ip cimport ipv4, ipv6
from synfin._core.link cimport ET_IPV4, find_ip
from synfin._core.tcp cimport tcp, tcp_options, tcp_timestamps
from synfin._core.tunnel cimport peel
from synfin._core.types cimport (
    VD_BAD_CHECKSUM, VD_ICMP_ERROR, VD_INSIDE, VD_SAME_ENDS, VD_SEGMENT, PacketRef, Segment, Tunnel,
)

# VD_SEGMENT: every field of the segment is set; its `tunnel` is NULL or `tunnel`, which is then set, too. Any other
# verdict names the skip; both are then undefined, but for what an ICMP error quotes (icmp.pxd). With `verify`, a wrong
# checksum is a skip.
cdef inline int decode(const PacketRef* packet, Segment* segment, Tunnel* tunnel, bint verify) noexcept nogil:
    cdef Cursor cursor
    cdef uint32_t kind
    cdef int verdict
    cursor.at = packet.data
    cursor.captured = packet.captured_len
    cursor.length = packet.wire_len
    cursor.marks = 0
    segment.tunnel = NULL
    segment.has_vlan = 0
    segment.vlan_id = 0
    verdict = find_ip(packet, &cursor, segment, &kind)
    if verdict != VD_SEGMENT:
        return verdict
    verdict = ipv4(&cursor, segment) if kind == ET_IPV4 else ipv6(&cursor, segment)
    if verdict == VD_INSIDE:
        verdict = peel(&cursor, segment, tunnel)
    if verdict != VD_SEGMENT:
        if verdict == VD_ICMP_ERROR:
            read_quote(&cursor, segment)
        return verdict
    verdict = tcp(&cursor, segment)
    if verdict != VD_SEGMENT:
        return verdict
    if segment.src_port == segment.dst_port and memcmp(segment.src, segment.dst, 16) == 0:
        return VD_SAME_ENDS
    if verify and not checksums_hold(&cursor, segment):
        return VD_BAD_CHECKSUM
    return VD_SEGMENT
