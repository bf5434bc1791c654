# From the first captured byte, or from inside a tunnel, to the IP header: link headers, VLAN tags, LLC, PPP, PPPoE, MPLS.
# Each step reads one header, advances the cursor and names what follows; every step but the last consumes bytes, so the
# work is bounded by the packet. IP is ip.pxd's, IEEE 802.11 radio.pxd's.
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from synfin._core.bytes cimport Cursor, advance, be16, be32
from synfin._core.linktype cimport *
from synfin._core.rare cimport pass_over, rare_step
from synfin._core.types cimport (
    PF_VLAN, VD_BAD_IP, VD_BAD_LINK, VD_HEADER_CUT, VD_LINK_TYPE, VD_NOT_IP, VD_SEGMENT, PacketRef, Segment,
)


# IEEE 802.3 section 3.2.6: the field is a length up to 1500, a type from 0x0600, and undefined between.
cdef inline uint32_t type_or_length(uint16_t field) noexcept nogil:
    if field >= ET_MIN:
        return field
    return LK_LLC if field <= ET_LENGTH_MAX else LK_UNKNOWN


cdef inline int ethernet(Cursor* cursor, uint32_t* kind) noexcept nogil:
    if cursor.captured < 14:
        return VD_HEADER_CUT
    kind[0] = type_or_length(be16(cursor.at + 12))
    advance(cursor, 14)
    return VD_SEGMENT


# IEEE 802.1Q section 9.6. The outermost tag of the outermost frame is the one recorded.
cdef inline int vlan(Cursor* cursor, Segment* segment, uint32_t* kind) noexcept nogil:
    if cursor.captured < 4:
        return VD_HEADER_CUT
    if not segment.has_vlan and segment.tunnel == NULL:
        segment.has_vlan = 1
        segment.vlan_id = be16(cursor.at) & 0x0FFF
    kind[0] = type_or_length(be16(cursor.at + 2))
    advance(cursor, 4)
    return VD_SEGMENT


# SNAP with the OUI of encapsulated Ethernet (RFC 1042, and 00-00-F8 of IEEE 802.1H), or IP's own SAP 0x06.
cdef inline int llc(Cursor* cursor, uint32_t* kind) noexcept nogil:
    cdef const uint8_t* p = cursor.at
    if cursor.captured < 3:
        return VD_HEADER_CUT
    if p[0] == 0x06 and p[1] == 0x06 and p[2] == 0x03:
        kind[0] = ET_IPV4
        advance(cursor, 3)
        return VD_SEGMENT
    if p[0] != 0xAA or p[1] != 0xAA or p[2] != 0x03:
        return VD_NOT_IP
    if cursor.captured < 8:
        return VD_HEADER_CUT
    if p[3] or p[4] or (p[5] and p[5] != 0xF8) or be16(p + 6) < ET_MIN:
        return VD_NOT_IP
    kind[0] = be16(p + 6)
    advance(cursor, 8)
    return VD_SEGMENT


# The protocol field of Linux cooked captures: an EtherType, or 4 for an 802.2 header; other small numbers are no IP.
cdef inline int cooked(Cursor* cursor, uint32_t size, uint32_t field, uint32_t* kind) noexcept nogil:
    cdef uint16_t protocol
    if cursor.captured < size:
        return VD_HEADER_CUT
    protocol = be16(cursor.at + field)
    if protocol == 4:
        kind[0] = LK_LLC
    elif protocol >= ET_MIN:
        kind[0] = protocol
    else:
        return VD_NOT_IP
    advance(cursor, size)
    return VD_SEGMENT


# The family is in the byte order of the machine that captured, which the file does not tell (LOOP: big-endian).
# AF_INET is 2 everywhere; AF_INET6 is 10 (Linux), 23 (Windows), 24 (NetBSD, OpenBSD), 26 (Solaris), 28 (FreeBSD) or
# 30 (Darwin).
cdef inline int family(Cursor* cursor, uint32_t* kind) noexcept nogil:
    cdef const uint8_t* p = cursor.at
    cdef uint32_t number
    if cursor.captured < 4:
        return VD_HEADER_CUT
    number = be32(p)
    if number > 0xFFFF:
        number = p[0] | (<uint32_t>p[1] << 8) | (<uint32_t>p[2] << 16) | (<uint32_t>p[3] << 24)
    if number == 2:
        kind[0] = ET_IPV4
    elif number == 10 or number == 23 or number == 24 or number == 26 or number == 28 or number == 30:
        kind[0] = ET_IPV6
    else:
        return VD_NOT_IP
    advance(cursor, 4)
    return VD_SEGMENT


# RFC 1662 section 3.1: FF 03 may be left out. 0F 00 and 8F 00 begin Cisco HDLC (RFC 1547 section 4.3.1), whose
# protocol field is an EtherType.
cdef inline int ppp_frame(Cursor* cursor, uint32_t* kind) noexcept nogil:
    cdef const uint8_t* p = cursor.at
    if cursor.captured < 2:
        return VD_HEADER_CUT
    if (p[0] == 0x0F or p[0] == 0x8F) and p[1] == 0:
        if cursor.captured < 4:
            return VD_HEADER_CUT
        if be16(p + 2) < ET_MIN:
            return VD_NOT_IP
        kind[0] = be16(p + 2)
        advance(cursor, 4)
        return VD_SEGMENT
    if p[0] == 0xFF and p[1] == 0x03:
        advance(cursor, 2)
    kind[0] = LK_PPP
    return VD_SEGMENT


# RFC 1661 section 2 and 6.5: the last byte of a protocol number is odd and all others are even, so an odd first byte is
# a compressed number. 0x21 IPv4, 0x57 IPv6, 0x281 and 0x283 MPLS.
cdef inline int ppp(Cursor* cursor, uint32_t* kind) noexcept nogil:
    cdef uint32_t protocol, size = 1
    if cursor.captured < 1:
        return VD_HEADER_CUT
    protocol = cursor.at[0]
    if not protocol & 1:
        if cursor.captured < 2:
            return VD_HEADER_CUT
        protocol = be16(cursor.at)
        size = 2
    if protocol == 0x21:
        kind[0] = ET_IPV4
    elif protocol == 0x57:
        kind[0] = ET_IPV6
    elif protocol == 0x281 or protocol == 0x283:
        kind[0] = ET_MPLS
    else:
        return VD_NOT_IP
    advance(cursor, size)
    return VD_SEGMENT


# RFC 2516 section 4: version and type 1; code 0 is the only one of the session stage.
cdef inline int pppoe(Cursor* cursor, uint32_t* kind) noexcept nogil:
    if cursor.captured < 6:
        return VD_HEADER_CUT
    if cursor.at[0] != 0x11:
        return VD_BAD_LINK
    if cursor.at[1] != 0:
        return VD_NOT_IP
    kind[0] = LK_PPP
    advance(cursor, 6)
    return VD_SEGMENT


# RFC 3032: labels up to the one with the bottom bit. Nothing says what follows; the first four bits do for IP
# (RFC 4928 section 3), and 0 is the control word of a pseudowire (RFC 4385 section 3), taken as Ethernet (RFC 4448).
cdef inline int mpls(Cursor* cursor, uint32_t* kind) noexcept nogil:
    cdef bint bottom = False
    cdef uint8_t version
    while not bottom:
        if cursor.captured < 4:
            return VD_HEADER_CUT
        bottom = cursor.at[2] & 1
        advance(cursor, 4)
    if cursor.captured < 1:
        return VD_HEADER_CUT
    version = cursor.at[0] >> 4
    if version == 4:
        kind[0] = ET_IPV4
    elif version == 6:
        kind[0] = ET_IPV6
    elif version == 0 and cursor.captured >= 4:
        kind[0] = LK_ETHERNET
        advance(cursor, 4)
    else:
        return VD_HEADER_CUT if version == 0 else VD_NOT_IP
    return VD_SEGMENT


cdef inline int ip_version(Cursor* cursor, uint32_t* kind) noexcept nogil:
    if cursor.captured < 1:
        return VD_HEADER_CUT
    if cursor.at[0] >> 4 == 4:
        kind[0] = ET_IPV4
    elif cursor.at[0] >> 4 == 6:
        kind[0] = ET_IPV6
    else:
        return VD_BAD_IP
    return VD_SEGMENT


# One step: the verdict is VD_SEGMENT as long as the way to IP goes on.
cdef inline int next_layer(Cursor* cursor, Segment* segment, uint32_t* kind) noexcept nogil:
    cdef uint32_t now = kind[0]
    if now == LK_ETHERNET or now == ET_BRIDGED:
        return ethernet(cursor, kind)
    elif now == ET_VLAN or now == ET_QINQ or now == ET_QINQ_OLD:
        return vlan(cursor, segment, kind)
    elif now == ET_MPLS or now == ET_MPLS_MULTICAST:
        return mpls(cursor, kind)
    elif now == ET_PPPOE:
        return pppoe(cursor, kind)
    elif now == LK_PPP:
        return ppp(cursor, kind)
    elif now == LK_PPP_FRAME:
        return ppp_frame(cursor, kind)
    elif now == LK_DIRECTION:
        return pass_over(cursor, 1, LK_PPP_FRAME, kind)
    elif now == LK_PPP_PPPD:
        return pass_over(cursor, 2, LK_PPP, kind)
    elif now == LK_LLC:
        return llc(cursor, kind)
    elif now == LK_COOKED:
        return cooked(cursor, 16, 14, kind)
    elif now == LK_COOKED2:
        return cooked(cursor, 20, 0, kind)
    elif now == LK_FAMILY:
        return family(cursor, kind)
    elif now == LK_IP:
        return ip_version(cursor, kind)
    return rare_step(cursor, kind)


# From what `kind` names to the IP header. VD_SEGMENT: kind is ET_IPV4 or ET_IPV6; else the skip's verdict.
cdef inline int walk_to_ip(Cursor* cursor, Segment* segment, uint32_t* kind) noexcept nogil:
    cdef int verdict = VD_SEGMENT
    while verdict == VD_SEGMENT and kind[0] != ET_IPV4 and kind[0] != ET_IPV6:
        verdict = next_layer(cursor, segment, kind)
    return verdict


# Moves the cursor to the IP header. VD_SEGMENT: kind is ET_IPV4 or ET_IPV6; else the skip's verdict.
cdef inline int find_ip(const PacketRef* packet, Cursor* cursor, Segment* segment, uint32_t* kind) noexcept nogil:
    kind[0] = first_layer(packet.link_type)
    if kind[0] == LK_UNKNOWN:
        return VD_LINK_TYPE
    if packet.flags & PF_VLAN:
        segment.has_vlan = 1
        segment.vlan_id = packet.vlan_tci & 0x0FFF
        cursor.length -= 4   # the tag is on the wire and not in the bytes
    return walk_to_ip(cursor, segment, kind)
