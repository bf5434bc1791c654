"""A Python window on single steps of the core, for tests. Slow: one call per packet."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from synfin._core.decode cimport decode as decode_packet
from synfin._core.tcp cimport tcp_options, tcp_timestamps
from synfin._core.types cimport (
    OPT_MPTCP, OPT_MSS, OPT_SACK_PERMITTED, OPT_TIMESTAMPS, OPT_WINDOW_SCALE, PF_VLAN, VD_COUNT, VD_LINK_TYPE,
    VD_SEGMENT, Options, PacketRef, Segment,
)

from synfin.schema import SKIPS


cdef dict _options(const Segment* segment):
    cdef Options options
    cdef uint32_t val = 0, ecr = 0
    cdef bint quick = tcp_timestamps(segment, &val, &ecr)
    tcp_options(segment, &options)
    return {
        "kinds": options.kinds,
        "mss": options.mss if options.has & OPT_MSS else None,
        "window_scale": options.window_scale if options.has & OPT_WINDOW_SCALE else None,
        "sack_permitted": bool(options.has & OPT_SACK_PERMITTED),
        "timestamps": (options.ts_val, options.ts_ecr) if options.has & OPT_TIMESTAMPS else None,
        "quick_timestamps": (val, ecr) if quick else None,
        "fast_open": (None, "cookie_request", "cookie")[options.fast_open],
        "mptcp": bool(options.has & OPT_MPTCP),
    }


cdef dict _segment(const Segment* segment):
    return {
        "ip_version": segment.ip_version,
        "src": (<const char*>segment.src)[:16],
        "dst": (<const char*>segment.dst)[:16],
        "src_port": segment.src_port,
        "dst_port": segment.dst_port,
        "seq": segment.seq,
        "ack": segment.ack,
        "flags": segment.flags,
        "window": segment.window,
        "payload_bytes": segment.payload_bytes,
        "ip_bytes": segment.ip_bytes,
        "ttl": segment.ttl,
        "dont_fragment": segment.dont_fragment,
        "vlan_id": segment.vlan_id if segment.has_vlan else None,
        "raw_options": (<const char*>segment.options)[:segment.options_len],
        "options": _options(segment),
    }


def decode(
    data: bytes, link_type: int, wire_len: int | None = None, vlan_tci: int | None = None, after: bytes = b""
) -> dict | str:
    """Decode one packet as the core does.

    Parameters
    ----------
    data : the captured bytes, link-layer header on.
    link_type : LINKTYPE_ value.
    wire_len : bytes on the wire without a tag in `vlan_tci`; those captured when None.
    vlan_tci : outermost VLAN tag that is not in the bytes, as live sources deliver it.
    after : bytes that lie in memory behind the captured ones and must not matter.

    Returns
    -------
    The segment as a dict, its addresses as 16 bytes (IPv4: the first 4, the rest 0) and its options under "options";
    or the name of the skip.

    Notes
    -----
    The bytes are copied to an allocation of exactly their size (and that of `after`), so that a sanitizer sees a read
    past their end; the segment is filled with 0xAA before, so that a field that is not set shows.
    """
    cdef const char* source = data
    cdef uint32_t size = <uint32_t>len(data)
    cdef uint8_t* copy = <uint8_t*>malloc(len(data) + len(after) or 1)
    cdef PacketRef packet
    cdef Segment segment
    cdef int verdict
    if copy == NULL:
        raise MemoryError
    try:
        memcpy(copy, source, size)
        memcpy(copy + size, <const char*>after, len(after))
        memset(&packet, 0, sizeof(PacketRef))
        memset(&segment, 0xAA, sizeof(Segment))
        packet.data = copy
        packet.captured_len = size
        packet.wire_len = size if wire_len is None else <uint32_t>max(wire_len, size)
        packet.link_type = <uint16_t>link_type
        if vlan_tci is not None:
            packet.vlan_tci = <uint16_t>vlan_tci
            packet.flags = PF_VLAN
            packet.wire_len += 4
        verdict = decode_packet(&packet, &segment)
        if verdict == VD_SEGMENT:
            return _segment(&segment)
        if verdict == VD_LINK_TYPE:
            return f"link_type_{link_type}"
        if not 0 <= verdict < VD_COUNT:
            raise AssertionError(f"verdict {verdict} is out of range")
        return SKIPS[verdict][0]
    finally:
        free(copy)
