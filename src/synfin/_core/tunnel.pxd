# From an IP header to the one inside its tunnel, as often as there is one. IP protocols say what follows; UDP's port only
# suggests it. A tunnel that turns out to carry no IP is what its outer packet is: not TCP.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from synfin._core.bytes cimport CU_FRAGMENT, Cursor, advance, announce, be16, be32
from synfin._core.declared cimport (
    TUN_4IN6, TUN_6IN4, TUN_6IN6, TUN_ERSPAN, TUN_GENEVE, TUN_GRE, TUN_GTPU, TUN_IPIP, TUN_NVGRE, TUN_PPTP, TUN_VXLAN,
)
from synfin._core.ip cimport IP_GRE, IP_IPV4, IP_IPV6, IP_UDP, ipv4, ipv6
from synfin._core.link cimport ET_BRIDGED, ET_IPV4, ET_IPV6, LK_ETHERNET, LK_IP, LK_PPP_FRAME, walk_to_ip
from synfin._core.types cimport (
    NO_TUNNEL_ID, VD_BAD_IP, VD_BAD_LINK, VD_BAD_TUNNEL, VD_FRAGMENT, VD_HEADER_CUT, VD_INSIDE, VD_NOT_IP, VD_NOT_TCP,
    VD_SEGMENT, VD_TUNNEL_DEPTH, Segment, Tunnel,
)

cdef enum:
    TUNNELS_MAX = 16         # peeled off one packet; more is a skip, so that the time that nesting costs is bounded
    PORT_GTPU = 2152
    PORT_VXLAN = 4789
    PORT_GENEVE = 6081
    PORT_VXLAN_LINUX = 8472  # Linux's VXLAN before it had a number
    GRE_CHECKSUM = 0x8000
    GRE_ROUTING = 0x4000
    GRE_KEY = 0x2000
    GRE_SEQUENCE = 0x1000
    GRE_ACK = 0x0080         # version 1 only
    GRE_VERSION = 0x0007
    GRE_PPP = 0x880B
    GRE_ERSPAN = 0x88BE
    GRE_ERSPAN3 = 0x22EB
    GTP_T_PDU = 255


# Whether a header of `size` bytes stands at the cursor: VD_SEGMENT, or why not.
cdef inline int has(const Cursor* cursor, uint32_t size) noexcept nogil:
    if size > cursor.length:
        return VD_FRAGMENT if cursor.marks & CU_FRAGMENT else VD_BAD_TUNNEL
    return VD_HEADER_CUT if size > cursor.captured else VD_SEGMENT


# ERSPAN's header behind GRE's: type I has none (and GRE no sequence number), type II 8 bytes with an Ethernet frame, type
# III 12 or 20 with what its frame type says.
cdef inline int erspan(Cursor* cursor, Tunnel* tunnel, uint32_t version, uint32_t* kind) noexcept nogil:
    cdef uint32_t size = 8 if version == 1 else 12
    cdef int verdict
    tunnel.kind = TUN_ERSPAN
    tunnel.id = NO_TUNNEL_ID
    kind[0] = LK_ETHERNET
    if version == 0:
        return VD_SEGMENT
    verdict = has(cursor, size)
    if verdict != VD_SEGMENT:
        return verdict
    if cursor.at[0] >> 4 != version:
        return VD_BAD_TUNNEL
    tunnel.id = be16(cursor.at + 2) & 0x03FF
    if version == 2:
        if cursor.at[11] & 1:
            size = 20
        if (cursor.at[10] >> 2) & 31 == 2:
            kind[0] = LK_IP
        elif (cursor.at[10] >> 2) & 31 != 0:
            return VD_NOT_IP
    verdict = has(cursor, size)
    if verdict == VD_SEGMENT:
        advance(cursor, size)
    return verdict


# RFC 2637 section 4.1: payload length and call ID where version 0 has its key.
cdef inline int pptp(Cursor* cursor, Tunnel* tunnel, uint16_t flags, uint32_t* kind) noexcept nogil:
    cdef uint32_t size = 8 + (4 if flags & GRE_SEQUENCE else 0) + (4 if flags & GRE_ACK else 0)
    cdef int verdict = has(cursor, size)
    if verdict != VD_SEGMENT:
        return verdict
    if be16(cursor.at + 2) != GRE_PPP:
        return VD_NOT_IP
    if not flags & GRE_KEY:
        return VD_BAD_TUNNEL
    if not flags & GRE_SEQUENCE or be16(cursor.at + 4) == 0:
        return VD_NOT_IP     # an acknowledgement alone
    tunnel.kind = TUN_PPTP
    tunnel.id = be16(cursor.at + 6)
    kind[0] = LK_PPP_FRAME
    advance(cursor, size)
    return VD_SEGMENT


# RFC 2784 and RFC 2890. A bridged frame with a key and neither checksum nor sequence number is NVGRE (RFC 7637 section
# 3.2), whose key ends in 8 bits of flow ID. Source routes (RFC 1701) are not decoded.
cdef inline int gre(Cursor* cursor, Tunnel* tunnel, uint32_t* kind) noexcept nogil:
    cdef uint16_t flags, protocol
    cdef uint32_t size = 4
    cdef int verdict = has(cursor, 4)
    if verdict != VD_SEGMENT:
        return verdict
    flags = be16(cursor.at)
    protocol = be16(cursor.at + 2)
    if flags & GRE_VERSION == 1:
        return pptp(cursor, tunnel, flags, kind)
    if flags & GRE_VERSION:
        return VD_BAD_TUNNEL
    if flags & GRE_ROUTING:
        return VD_NOT_IP
    size += (4 if flags & GRE_CHECKSUM else 0) + (4 if flags & GRE_KEY else 0) + (4 if flags & GRE_SEQUENCE else 0)
    verdict = has(cursor, size)
    if verdict != VD_SEGMENT:
        return verdict
    tunnel.kind = TUN_GRE
    if flags & GRE_KEY:
        tunnel.id = be32(cursor.at + (8 if flags & GRE_CHECKSUM else 4))
        if protocol == ET_BRIDGED and not flags & (GRE_CHECKSUM | GRE_SEQUENCE):
            tunnel.kind = TUN_NVGRE
            tunnel.id >>= 8
    advance(cursor, size)
    if protocol == GRE_ERSPAN:
        return erspan(cursor, tunnel, 1 if flags & GRE_SEQUENCE else 0, kind)
    if protocol == GRE_ERSPAN3:
        return erspan(cursor, tunnel, 2, kind)
    kind[0] = protocol
    return VD_SEGMENT


# RFC 7348 section 5: of the flags, only the one that marks the VNI as valid is judged.
cdef inline int vxlan(Cursor* cursor, Tunnel* tunnel, uint32_t* kind) noexcept nogil:
    cdef int verdict = has(cursor, 8)
    if verdict != VD_SEGMENT:
        return verdict
    if not cursor.at[0] & 0x08:
        return VD_BAD_TUNNEL
    tunnel.kind = TUN_VXLAN
    tunnel.id = be32(cursor.at + 4) >> 8
    kind[0] = LK_ETHERNET
    advance(cursor, 8)
    return VD_SEGMENT


# RFC 8926 section 3.4: version 0, options in units of 4 bytes, then what the protocol type says.
cdef inline int geneve(Cursor* cursor, Tunnel* tunnel, uint32_t* kind) noexcept nogil:
    cdef uint32_t size
    cdef int verdict = has(cursor, 8)
    if verdict != VD_SEGMENT:
        return verdict
    if cursor.at[0] >> 6:
        return VD_BAD_TUNNEL
    size = 8 + (<uint32_t>cursor.at[0] & 63) * 4
    verdict = has(cursor, size)
    if verdict != VD_SEGMENT:
        return verdict
    tunnel.kind = TUN_GENEVE
    tunnel.id = be32(cursor.at + 4) >> 8
    kind[0] = be16(cursor.at + 2)
    advance(cursor, size)
    return VD_SEGMENT


# 3GPP TS 29.281 section 5: version 1 of GTP, the length without the first 8 bytes; any of E, S and PN adds 4 bytes, E a
# chain of extension headers in units of 4 bytes, whose last byte names the next one.
cdef inline int gtpu(Cursor* cursor, Tunnel* tunnel, uint32_t* kind) noexcept nogil:
    cdef const uint8_t* p = cursor.at
    cdef uint32_t length, size
    cdef uint8_t following
    cdef int verdict = has(cursor, 8)
    if verdict != VD_SEGMENT:
        return verdict
    length = be16(p + 2)
    if p[0] >> 4 != 3 or (length + 8 > cursor.length and not cursor.marks & CU_FRAGMENT):
        return VD_BAD_TUNNEL
    if p[1] != GTP_T_PDU:
        return VD_NOT_IP
    tunnel.kind = TUN_GTPU
    tunnel.id = be32(p + 4)
    advance(cursor, 8)
    if length < cursor.length:
        announce(cursor, length)
    kind[0] = LK_IP
    if not p[0] & 7:
        return VD_SEGMENT
    verdict = has(cursor, 4)
    if verdict != VD_SEGMENT:
        return verdict
    following = p[11] if p[0] & 4 else 0
    advance(cursor, 4)
    while following:
        verdict = has(cursor, 4)
        if verdict != VD_SEGMENT:
            return verdict
        size = <uint32_t>cursor.at[0] * 4
        if size == 0:
            return VD_BAD_TUNNEL
        verdict = has(cursor, size)
        if verdict != VD_SEGMENT:
            return verdict
        following = cursor.at[size - 1]
        advance(cursor, size)
    return VD_SEGMENT


# By the destination port alone. UDP's length bounds what follows; 0 is that of a packet that the card was to segment.
cdef inline int udp(Cursor* cursor, Tunnel* tunnel, uint32_t* kind) noexcept nogil:
    cdef uint16_t port
    cdef uint32_t length
    cdef int verdict
    if cursor.captured < 4:
        return VD_NOT_TCP
    port = be16(cursor.at + 2)
    if port != PORT_VXLAN and port != PORT_VXLAN_LINUX and port != PORT_GENEVE and port != PORT_GTPU:
        return VD_NOT_TCP
    verdict = has(cursor, 8)
    if verdict != VD_SEGMENT:
        return verdict
    length = be16(cursor.at + 4)
    if length:
        if length < 8 or (length > cursor.length and not cursor.marks & CU_FRAGMENT):
            return VD_BAD_TUNNEL
        if length < cursor.length:
            announce(cursor, length)
    advance(cursor, 8)
    if port == PORT_GENEVE:
        return geneve(cursor, tunnel, kind)
    return gtpu(cursor, tunnel, kind) if port == PORT_GTPU else vxlan(cursor, tunnel, kind)


# One tunnel header, of the protocol that the cursor names. VD_SEGMENT: the cursor stands before what `kind` names.
cdef inline int open_tunnel(Cursor* cursor, uint8_t version, Tunnel* tunnel, uint32_t* kind) noexcept nogil:
    tunnel.id = NO_TUNNEL_ID
    if cursor.protocol == IP_UDP:
        return udp(cursor, tunnel, kind)
    if cursor.protocol == IP_GRE:
        return gre(cursor, tunnel, kind)
    if cursor.protocol == IP_IPV4:
        tunnel.kind = TUN_IPIP if version == 4 else TUN_4IN6
        kind[0] = ET_IPV4
    else:
        tunnel.kind = TUN_6IN4 if version == 4 else TUN_6IN6
        kind[0] = ET_IPV6
    return VD_SEGMENT


# Before: ipv4 or ipv6 said VD_INSIDE. VD_SEGMENT: the cursor stands before the TCP header, the segment describes the
# innermost IP header and `outermost` the first tunnel. The work is bounded by TUNNELS_MAX and the packet's bytes.
cdef inline int peel(Cursor* cursor, Segment* segment, Tunnel* outermost) noexcept nogil:
    cdef Tunnel deeper
    cdef Tunnel* tunnel = outermost
    cdef uint32_t kind = 0
    cdef int verdict, depth
    cdef bint guessed
    for depth in range(TUNNELS_MAX + 1):
        guessed = cursor.protocol == IP_UDP
        verdict = open_tunnel(cursor, segment.ip_version, tunnel, &kind)
        if verdict == VD_SEGMENT:
            if depth == TUNNELS_MAX:
                return VD_TUNNEL_DEPTH
            if depth == 0:
                memcpy(outermost.src, segment.src, 16)
                memcpy(outermost.dst, segment.dst, 16)
                outermost.ip_version = segment.ip_version
                segment.tunnel = outermost
                tunnel = &deeper
            verdict = walk_to_ip(cursor, segment, &kind)
        if verdict == VD_SEGMENT:
            verdict = ipv4(cursor, segment) if kind == ET_IPV4 else ipv6(cursor, segment)
        if verdict == VD_INSIDE:
            continue
        if verdict == VD_NOT_IP or (guessed and (verdict == VD_BAD_TUNNEL or verdict == VD_BAD_LINK
                                                 or verdict == VD_BAD_IP)):
            return VD_NOT_TCP
        return verdict
    return VD_TUNNEL_DEPTH
