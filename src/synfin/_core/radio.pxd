# IEEE 802.11 data frames in the clear, and the headers that drivers write before them. Every function moves the cursor to
# what follows: the LLC header (wlan, radiotap) or the IEEE 802.11 header (prism, avs). Management and control frames
# carry no IP.
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from synfin._core.bytes cimport Cursor, advance, be32, le16, le32
from synfin._core.types cimport (
    VD_AGGREGATE, VD_BAD_LINK, VD_ENCRYPTED, VD_FRAGMENT, VD_HEADER_CUT, VD_NOT_IP, VD_SEGMENT,
)

cdef enum:
    PRISM_BYTES = 144
    AVS_MAGIC = 0x80211      # the first word of an AVS header without its version, the last 12 bits
    # Frame control, as a little-endian word (IEEE 802.11-2020 section 9.2.4.1).
    WL_VERSION = 0x0003
    WL_TYPE = 0x000C
    WL_DATA = 0x0008
    WL_NO_DATA = 0x0040
    WL_QOS = 0x0080
    WL_TO_DS = 0x0100
    WL_FROM_DS = 0x0200
    WL_PROTECTED = 0x4000
    WL_ORDER = 0x8000
    # Radiotap's field bits (radiotap.org).
    RT_TSFT = 1
    RT_FLAGS = 2
    RT_FLAG_PADDED = 0x20    # the IEEE 802.11 header is padded to 4 bytes


# Section 9.3.2.1: 24 bytes, 6 for a fourth address, 2 of QoS control, 4 of HT control. Later fragments begin in the
# middle of a packet; an A-MSDU holds several packets.
cdef inline int wlan(Cursor* cursor, bint padded) noexcept nogil:
    cdef const uint8_t* p = cursor.at
    cdef uint32_t size = 24
    cdef uint16_t control
    if cursor.captured < 2:
        return VD_HEADER_CUT
    control = le16(p)
    if control & WL_VERSION:
        return VD_BAD_LINK
    if control & WL_TYPE != WL_DATA or control & WL_NO_DATA:
        return VD_NOT_IP
    if control & WL_PROTECTED:
        return VD_ENCRYPTED
    if control & WL_TO_DS and control & WL_FROM_DS:
        size += 6
    if control & WL_QOS:
        size += 2
    if cursor.captured < size:
        return VD_HEADER_CUT
    if le16(p + 22) & 15:
        return VD_FRAGMENT
    if control & WL_QOS:
        if p[size - 2] & 0x80:
            return VD_AGGREGATE
        if control & WL_ORDER:
            size += 4
    if padded:
        size = (size + 3) & 0xFFFFFFC
    if cursor.captured < size:
        return VD_HEADER_CUT
    advance(cursor, size)
    return VD_SEGMENT


# Where the radiotap header's flags stand, 0 if it has none: behind all words of field bits and the 8-byte time stamp,
# which is aligned to its size.
cdef inline uint32_t radiotap_flags_at(const uint8_t* p, uint32_t size) noexcept nogil:
    cdef uint32_t present = le32(p + 4), word = present, at = 8
    while word >> 31:         # another word follows
        if at + 4 > size:
            return 0
        word = le32(p + at)
        at += 4
    if not present & RT_FLAGS:
        return 0
    if present & RT_TSFT:
        at = ((at + 7) & 0xFFFFFF8) + 8
    return at if at < size else 0


cdef inline int radiotap(Cursor* cursor) noexcept nogil:
    cdef const uint8_t* p = cursor.at
    cdef uint32_t size, flags_at
    if cursor.captured < 8:
        return VD_HEADER_CUT
    size = le16(p + 2)
    if p[0] or size < 8:
        return VD_BAD_LINK
    if size > cursor.captured:
        return VD_HEADER_CUT
    flags_at = radiotap_flags_at(p, size)
    advance(cursor, size)
    return wlan(cursor, flags_at and p[flags_at] & RT_FLAG_PADDED)


# Absolute Value Systems' capture header, version 1 or 2: big-endian, its length in the second word.
cdef inline int avs(Cursor* cursor) noexcept nogil:
    cdef uint32_t size
    if cursor.captured < 8:
        return VD_HEADER_CUT
    size = be32(cursor.at + 4)
    if be32(cursor.at) >> 12 != AVS_MAGIC or size < 8:
        return VD_BAD_LINK
    if size > cursor.captured:
        return VD_HEADER_CUT
    advance(cursor, size)
    return VD_SEGMENT


# The Prism header, of fixed length; drivers write AVS headers under the same link type.
cdef inline int prism(Cursor* cursor) noexcept nogil:
    if cursor.captured >= 4 and be32(cursor.at) >> 12 == AVS_MAGIC:
        return avs(cursor)
    if cursor.captured < PRISM_BYTES:
        return VD_HEADER_CUT
    advance(cursor, PRISM_BYTES)
    return VD_SEGMENT
