# Networks that few captures come from: one step each, as in link.pxd.
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from synfin._core.bytes cimport Cursor, advance, be16, le16, le32
from synfin._core.linktype cimport *
from synfin._core.radio cimport avs, prism, radiotap, wlan
from synfin._core.types cimport VD_BAD_LINK, VD_HEADER_CUT, VD_NOT_IP, VD_SEGMENT


# Headers of `size` bytes that hold nothing of use; what follows is known before.
cdef inline int pass_over(Cursor* cursor, uint32_t size, uint32_t following, uint32_t* kind) noexcept nogil:
    if cursor.captured < size:
        return VD_HEADER_CUT
    kind[0] = following
    advance(cursor, size)
    return VD_SEGMENT


# Per-packet information (CACE Technologies, 2008): the header's length, then the link type of what follows it.
cdef inline int packet_information(Cursor* cursor, uint32_t* kind) noexcept nogil:
    cdef uint32_t size, inner
    if cursor.captured < 8:
        return VD_HEADER_CUT
    size = le16(cursor.at + 2)
    inner = le32(cursor.at + 4)
    if size < 8:
        return VD_BAD_LINK
    if size > cursor.captured:
        return VD_HEADER_CUT
    kind[0] = first_layer(<uint16_t>inner) if inner <= 0xFFFF else LK_UNKNOWN
    if kind[0] == LK_PPI:
        return VD_NOT_IP
    advance(cursor, size)
    return VD_SEGMENT


# Frame control, two addresses, then LLC in asynchronous LLC frames (ISO 9314-2).
cdef inline int fddi(Cursor* cursor, uint32_t* kind) noexcept nogil:
    if cursor.captured >= 1 and cursor.at[0] & 0xF0 != 0x50:
        return VD_NOT_IP
    return pass_over(cursor, 13, LK_LLC, kind)


# IEEE 802.5: access and frame control, two addresses; a source route where the source's group bit is set; then LLC in
# LLC frames.
cdef inline int token_ring(Cursor* cursor, uint32_t* kind) noexcept nogil:
    cdef uint32_t size = 14
    if cursor.captured < 14:
        return VD_HEADER_CUT
    if cursor.at[1] & 0xC0 != 0x40:
        return VD_NOT_IP
    if cursor.at[8] & 0x80:
        if cursor.captured < 15:
            return VD_HEADER_CUT
        size += cursor.at[14] & 0x1F
    return pass_over(cursor, size, LK_LLC, kind)


# Linux's header: two addresses, two bytes of offset, the type; RFC 1201 adds a fragment flag and a sequence number,
# RFC 1051 (types 240 and 241) does not. 212 and 240 are IPv4, 196 is IPv6.
cdef inline int arcnet(Cursor* cursor, uint32_t* kind) noexcept nogil:
    cdef uint8_t type_
    if cursor.captured < 5:
        return VD_HEADER_CUT
    type_ = cursor.at[4]
    if type_ == 240:
        return pass_over(cursor, 5, ET_IPV4, kind)
    if type_ != 212 and type_ != 196:
        return VD_NOT_IP
    if cursor.captured < 8:
        return VD_HEADER_CUT
    if cursor.at[5]:         # one of several fragments
        return VD_NOT_IP
    return pass_over(cursor, 8, ET_IPV4 if type_ == 212 else ET_IPV6, kind)


# Linux's netfilter log: 4 bytes, then attributes (length with its own 4 bytes, type) in the byte order of the machine
# that captured, each padded to 4 bytes; attribute 1 begins with the EtherType, 9 is the packet behind the link header.
# No type is above 255, which tells the order.
cdef inline int nflog(Cursor* cursor, uint32_t* kind) noexcept nogil:
    cdef uint32_t size, what, following = LK_IP
    cdef bint little
    if cursor.captured < 4:
        return VD_HEADER_CUT
    advance(cursor, 4)
    while True:
        if cursor.captured < 4:
            return VD_HEADER_CUT
        little = cursor.at[3] == 0
        size = le16(cursor.at) if little else be16(cursor.at)
        what = le16(cursor.at + 2) if little else be16(cursor.at + 2)
        if size < 4:
            return VD_BAD_LINK
        if what == 9:
            return pass_over(cursor, 4, following, kind)
        if what == 1 and size >= 6 and cursor.captured >= 6 and be16(cursor.at + 4):
            following = be16(cursor.at + 4)
        size = (size + 3) & 0xFFFFFFC
        if size > cursor.captured:
            return VD_HEADER_CUT
        advance(cursor, size)


# Headers before IEEE 802.11, and those of rarer networks.
cdef inline int rare_step(Cursor* cursor, uint32_t* kind) noexcept nogil:
    cdef uint32_t now = kind[0]
    if now == LK_WLAN:
        kind[0] = LK_LLC
        return wlan(cursor, False)
    elif now == LK_RADIOTAP:
        kind[0] = LK_LLC
        return radiotap(cursor)
    elif now == LK_PRISM:
        kind[0] = LK_WLAN
        return prism(cursor)
    elif now == LK_AVS:
        kind[0] = LK_WLAN
        return avs(cursor)
    elif now == LK_PPI:
        return packet_information(cursor, kind)
    elif now == LK_NFLOG:
        return nflog(cursor, kind)
    elif now == LK_FDDI:
        return fddi(cursor, kind)
    elif now == LK_TOKEN_RING:
        return token_ring(cursor, kind)
    elif now == LK_ARCNET:
        return arcnet(cursor, kind)
    elif now == LK_IPOIB:
        if cursor.captured < 44:
            return VD_HEADER_CUT
        return pass_over(cursor, 44, be16(cursor.at + 40), kind)
    elif now == ET_BACKBONE:
        return pass_over(cursor, 4, LK_ETHERNET, kind)
    elif now == ET_FABRIC:  # tree (10 bits) and hop count (6 bits)
        return pass_over(cursor, 2, LK_ETHERNET, kind)
    return VD_NOT_IP
