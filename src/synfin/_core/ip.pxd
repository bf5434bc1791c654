# From the IP header to the TCP header, or to what may be a tunnel's: addresses, TTL, fragments, and the length that IP
# announces, which alone says how long the payload is. RFC 791, RFC 8200, RFC 2675, RFC 4302.
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memset

from synfin._core.bytes cimport CU_FRAGMENT, CU_ROUTED, Cursor, advance, announce, be16, be32
from synfin._core.types cimport (
    VD_BAD_IP, VD_FRAGMENT, VD_HEADER_CUT, VD_ICMP_ERROR, VD_INSIDE, VD_NOT_TCP, VD_SEGMENT, Segment,
)

cdef enum:
    IP_HOP_BY_HOP = 0
    IP_ICMP = 1
    IP_IPV4 = 4
    IP_TCP = 6
    IP_UDP = 17
    IP_IPV6 = 41
    IP_ROUTING = 43
    IP_FRAGMENT = 44
    IP_GRE = 47
    IP_AUTHENTICATION = 51
    IP_ICMPV6 = 58
    IP_DESTINATION = 60
    IP_MOBILITY = 135
    IP_HOST_IDENTITY = 139
    IP_SHIM6 = 140

cdef enum:
    # No segment can be longer than the largest TCP window (RFC 7323 section 2.3); where the wire length or a jumbo
    # option stands in for IP's length field, more than this is a lie, and sequence arithmetic relies on it.
    IP_LENGTH_MAX = 0x40000000


# The skip of a protocol other than TCP, and whether an ICMP message is an error: ICMP 3, 4, 5, 11, 12 (RFC 792),
# ICMPv6 below 128 (RFC 4443 section 2.1). VD_INSIDE: what may be a tunnel, the cursor before its header.
cdef inline int other_protocol(Cursor* cursor, uint8_t version, uint8_t protocol) noexcept nogil:
    cdef uint8_t kind
    if protocol == IP_UDP or protocol == IP_GRE or protocol == IP_IPV4 or protocol == IP_IPV6:
        cursor.protocol = protocol
        return VD_INSIDE
    if cursor.captured < 1:
        return VD_NOT_TCP
    kind = cursor.at[0]
    if version == 4 and protocol == IP_ICMP:
        if 3 <= kind <= 5 or kind == 11 or kind == 12:
            return VD_ICMP_ERROR
    elif version == 6 and protocol == IP_ICMPV6 and kind < 128:
        return VD_ICMP_ERROR
    return VD_NOT_TCP


cdef inline bint is_extension(uint8_t protocol) noexcept nogil:
    return (
        protocol == IP_HOP_BY_HOP or protocol == IP_ROUTING or protocol == IP_FRAGMENT or protocol == IP_AUTHENTICATION
        or protocol == IP_DESTINATION or protocol == IP_MOBILITY or protocol == IP_HOST_IDENTITY
        or protocol == IP_SHIM6
    )


# The skip of a fragment that is not the first: of TCP, of something else, or of what further headers would tell.
cdef inline int later_fragment(uint8_t protocol) noexcept nogil:
    return VD_FRAGMENT if protocol == IP_TCP or is_extension(protocol) else VD_NOT_TCP


# Walks extension headers up to TCP. Every header has at least 8 bytes, so the packet bounds the walk.
# Units differ: AH counts 4 bytes less two units (RFC 4302 section 2.2), the others 8 bytes less one (RFC 6564).
cdef inline int extensions(Cursor* cursor, uint8_t version, uint8_t protocol) noexcept nogil:
    cdef uint32_t size
    while protocol != IP_TCP:
        if not is_extension(protocol):
            return other_protocol(cursor, version, protocol)
        if cursor.length < 8:
            return VD_BAD_IP
        if cursor.captured < 8:
            return VD_HEADER_CUT
        if protocol == IP_FRAGMENT:
            if be16(cursor.at + 2) & 0xFFF8:
                return later_fragment(cursor.at[0])
            if cursor.at[3] & 1:
                cursor.marks |= CU_FRAGMENT
            size = 8
        elif protocol == IP_AUTHENTICATION:
            size = (<uint32_t>cursor.at[1] + 2) * 4
        else:
            if protocol == IP_ROUTING and cursor.at[3]:
                cursor.marks |= CU_ROUTED
            size = (<uint32_t>cursor.at[1] + 1) * 8
        if size > cursor.length:
            return VD_BAD_IP
        if size > cursor.captured:
            return VD_HEADER_CUT
        protocol = cursor.at[0]
        advance(cursor, size)
    return VD_SEGMENT


# What an IP header inside a tunnel announces beyond the outer packet's first fragment stands in later ones: it counts
# with what this one carries, and is a first fragment itself. Returns the marks that it begins with.
cdef inline uint8_t bound_by_fragment(const Cursor* cursor, uint32_t* total) noexcept nogil:
    if cursor.marks & CU_FRAGMENT and total[0] > cursor.length:
        total[0] = cursor.length
        return CU_FRAGMENT
    return 0


# Before an IPv4 header. VD_SEGMENT: the cursor stands before the TCP header, bounded by IP's length. VD_INSIDE: before
# what may be a tunnel's header, with IP's fields in the segment.
# Total length 0 is a packet captured before the card segmented it: the wire length counts.
cdef inline int ipv4(Cursor* cursor, Segment* segment) noexcept nogil:
    cdef const uint8_t* p = cursor.at
    cdef uint32_t size, total
    cdef uint16_t fragment
    cdef uint8_t marks
    if cursor.captured < 20:
        return VD_HEADER_CUT
    size = (p[0] & 15) * 4
    if p[0] >> 4 != 4 or size < 20:
        return VD_BAD_IP
    total = be16(p + 2)
    if total == 0:
        total = cursor.length
    if total < size or total > IP_LENGTH_MAX:
        return VD_BAD_IP
    marks = bound_by_fragment(cursor, &total)
    fragment = be16(p + 6)
    if fragment & 0x1FFF:
        return later_fragment(p[9])
    announce(cursor, total)
    if cursor.captured < size:
        return VD_HEADER_CUT
    advance(cursor, size)
    cursor.ip = p
    cursor.marks = CU_FRAGMENT if fragment & 0x2000 else marks
    memset(segment.src, 0, 16)
    memset(segment.dst, 0, 16)
    memcpy(segment.src, p + 12, 4)
    memcpy(segment.dst, p + 16, 4)
    segment.ip = p
    segment.ip_id = be16(p + 4)
    segment.ip_version = 4
    segment.ttl = p[8]
    segment.dont_fragment = (fragment >> 14) & 1
    segment.ip_bytes = total
    if p[9] == IP_TCP:
        return VD_SEGMENT
    if p[9] == IP_AUTHENTICATION:
        return extensions(cursor, 4, IP_AUTHENTICATION)
    return other_protocol(cursor, 4, p[9])


# The length of an IPv6 packet whose payload length is 0: by its jumbo payload option where that stands first
# (RFC 2675 section 2; Linux writes it so), else by the wire.
cdef inline uint32_t jumbo_length(const Cursor* cursor) noexcept nogil:
    cdef const uint8_t* p = cursor.at
    if p[6] == IP_HOP_BY_HOP and cursor.captured >= 48 and p[42] == 0xC2 and p[43] == 4:
        return be32(p + 44) + 40 if be32(p + 44) < IP_LENGTH_MAX else 0xFFFFFFFF
    return cursor.length


# Before an IPv6 header; the rest as in ipv4.
cdef inline int ipv6(Cursor* cursor, Segment* segment) noexcept nogil:
    cdef const uint8_t* p = cursor.at
    cdef uint32_t total
    cdef uint8_t marks
    if cursor.captured < 40:
        return VD_HEADER_CUT
    if p[0] >> 4 != 6:
        return VD_BAD_IP
    total = 40 + <uint32_t>be16(p + 4)
    if total == 40:
        total = jumbo_length(cursor)
    if total > IP_LENGTH_MAX:
        return VD_BAD_IP
    marks = bound_by_fragment(cursor, &total)
    announce(cursor, total)
    advance(cursor, 40)
    cursor.ip = p
    cursor.marks = marks
    memcpy(segment.src, p + 8, 16)
    memcpy(segment.dst, p + 24, 16)
    segment.ip = p
    segment.ip_id = 0
    segment.ip_version = 6
    segment.ttl = p[7]
    segment.dont_fragment = 0
    segment.ip_bytes = total
    if p[6] == IP_TCP:
        return VD_SEGMENT
    return extensions(cursor, 6, p[6])
