# What an ICMP or ICMPv6 error quotes of the packet that caused it: the IP header and at least the first 8 bytes behind
# it, which name the connection and the segment (RFC 792, RFC 1812 section 4.3.2.3, RFC 4443 section 3). The error itself
# stays a named skip.
from libc.stdint cimport uint8_t

from synfin._core.bytes cimport Cursor, advance, be16, be32
from synfin._core.ip cimport ipv4, ipv6
from synfin._core.types cimport VD_SEGMENT, Segment

cdef enum:
    ICMP_HEADER = 8
    ICMP_UNREACHABLE = 3
    ICMP_FRAGMENTATION_NEEDED = 4    # code of ICMP_UNREACHABLE
    ICMP_TIME_EXCEEDED = 11
    ICMP_PARAMETER_PROBLEM = 12
    ICMPV6_UNREACHABLE = 1
    ICMPV6_TIME_EXCEEDED = 3
    ICMPV6_PARAMETER_PROBLEM = 4

# Before: the cursor stands at the error's header, segment.ip_version is the error's. After, with segment.quoted:
# addresses, ports and sequence number are those of the quoted segment, `options` is the error's own IP header; the other
# fields say nothing.
cdef inline void read_quote(const Cursor* error, Segment* segment) noexcept nogil:
    cdef Cursor quote = error[0]
    segment.quoted = 0
    if quote.captured < ICMP_HEADER:
        return
    segment.icmp_type = quote.at[0]
    segment.icmp_code = quote.at[1]
    segment.options = segment.ip
    advance(&quote, ICMP_HEADER)
    # The quoted length is that of the whole packet, most of which is not here: only captured bytes are read.
    if (ipv4(&quote, segment) if segment.ip_version == 4 else ipv6(&quote, segment)) != VD_SEGMENT:
        return
    if quote.captured < 8:
        return
    segment.src_port = be16(quote.at)
    segment.dst_port = be16(quote.at + 2)
    segment.seq = be32(quote.at + 4)
    segment.quoted = 1

# Whether the error says that the quoted segment did not arrive. Not so: the packet was too big, another router is nearer,
# slow down (Linux takes none of them for a failed connection either).
cdef inline bint says_unreachable(const Segment* segment) noexcept nogil:
    cdef uint8_t kind = segment.icmp_type
    if segment.ip_version == 6:
        return kind == ICMPV6_UNREACHABLE or kind == ICMPV6_TIME_EXCEEDED or kind == ICMPV6_PARAMETER_PROBLEM
    if kind == ICMP_UNREACHABLE:
        return segment.icmp_code != ICMP_FRAGMENTATION_NEEDED
    return kind == ICMP_TIME_EXCEEDED or kind == ICMP_PARAMETER_PROBLEM
