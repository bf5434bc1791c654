"""A Python window on single steps of the core, for tests and `synfin explain`. Slow: one call per packet."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from synfin._core.batch cimport PacketBatch
from synfin._core.brief cimport Brief, brief_of, brief_plain, whole_of_plain
from synfin._core.core cimport Core
from synfin._core.decode cimport decode as decode_packet
from synfin._core.filter cimport Instruction, Program, filter_accepts, filter_is_sound
from synfin._core.flow cimport AddressPair, Copies, CopyPair, Extra, Facts, Flow, Held, Rtt, Trouble, Vlans, Wide
from synfin._core.intervals cimport (
    RTT_BUCKETS, RttHistogram, rtt_bucket, rtt_bucket_middle, rtt_histogram_add, rtt_quantile,
)
from synfin._core.icmp cimport says_unreachable
from synfin._core.key cimport Key, key_of
from synfin._core.sink cimport format_ipv4, format_ipv6
from synfin._core.seq cimport seq_distance, seq_ge, seq_gt, seq_le, seq_lt
from synfin._core.table cimport PROBE_MAX, Slot, table_insert, table_remove
from synfin._core.tcp cimport tcp_options, tcp_timestamps
from synfin._core.types cimport (
    NO_TUNNEL_ID, OPT_MPTCP, OPT_MSS, OPT_SACK_PERMITTED, OPT_TIMESTAMPS, OPT_WINDOW_SCALE, PF_VLAN, VD_COUNT,
    VD_ICMP_ERROR, VD_LINK_TYPE, VD_SEGMENT, Options, PacketRef, Segment, Tunnel,
)

from synfin.schema import ENUMS, SKIPS

cdef enum:
    _SEED = 0x1234567


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


cdef dict _ends(const Segment* segment):
    return {
        "ip_version": segment.ip_version,
        "src": (<const char*>segment.src)[:16],
        "dst": (<const char*>segment.dst)[:16],
        "src_port": segment.src_port,
        "dst_port": segment.dst_port,
        "seq": segment.seq,
    }


cdef dict _segment(const Segment* segment):
    return _ends(segment) | {
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
        "tunnel": _tunnel(segment.tunnel) if segment.tunnel != NULL else None,
    }


cdef tuple _tunnel(const Tunnel* tunnel):
    width = 4 if tunnel.ip_version == 4 else 16
    return (
        ENUMS["tunnel"][tunnel.kind], None if tunnel.id == NO_TUNNEL_ID else tunnel.id,
        (<const char*>tunnel.src)[:width], (<const char*>tunnel.dst)[:width],
    )


# A packet as `decode` describes its arguments.
cdef int _describe(PacketRef* packet, const uint8_t* data, uint32_t size, int link_type, wire_len, vlan_tci) except -1:
    memset(packet, 0, sizeof(PacketRef))
    packet.data = data
    packet.captured_len = size
    packet.wire_len = size if wire_len is None else <uint32_t>max(wire_len, size)
    packet.link_type = <uint16_t>link_type
    if vlan_tci is not None:
        packet.vlan_tci = <uint16_t>vlan_tci
        packet.flags = PF_VLAN
        packet.wire_len += 4
    return 0


def decode(
    data: bytes, link_type: int, wire_len: int | None = None, vlan_tci: int | None = None, after: bytes = b"",
    verify: bool = False,
) -> dict | str:
    """Decode one packet as the core does.

    Parameters
    ----------
    data : the captured bytes, link-layer header on.
    link_type : LINKTYPE_ value.
    wire_len : bytes on the wire without a tag in `vlan_tci`; those captured when None.
    vlan_tci : outermost VLAN tag that is not in the bytes, as live sources deliver it.
    after : bytes that lie in memory behind the captured ones and must not matter.
    verify : whether a wrong checksum is a skip.

    Returns
    -------
    The segment as a dict, its addresses as 16 bytes (IPv4: the first 4, the rest 0), its options under "options", the
    outermost tunnel's kind, id and addresses (4 or 16 bytes) under "tunnel"; or the name of the skip.

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
    cdef Tunnel tunnel
    cdef int verdict
    if copy == NULL:
        raise MemoryError
    try:
        memcpy(copy, source, size)
        memcpy(copy + size, <const char*>after, len(after))
        memset(&segment, 0xAA, sizeof(Segment))
        memset(&tunnel, 0xAA, sizeof(Tunnel))
        _describe(&packet, copy, size, link_type, wire_len, vlan_tci)
        verdict = decode_packet(&packet, &segment, &tunnel, verify)
        if verdict == VD_SEGMENT:
            return _segment(&segment)
        if verdict == VD_LINK_TYPE:
            return f"link_type_{link_type}"
        if not 0 <= verdict < VD_COUNT:
            raise AssertionError(f"verdict {verdict} is out of range")
        return SKIPS[verdict][0]
    finally:
        free(copy)


def plain(data: bytes, link_type: int, wire_len: int | None = None, vlan_tci: int | None = None) -> tuple | None:
    """What the look at plain packets makes of one, beside what all layers make of it; arguments as for `decode`.

    Returns
    -------
    None where the packet is not plain. Otherwise the same twice, by the look and by the layers (None: it is no segment):
    the segment as of `decode`, its key (both ends' addresses and ports, the sender, hash), and the brief's fields.
    """
    cdef const char* source = data
    cdef uint32_t size = <uint32_t>len(data)
    cdef uint8_t* copy = <uint8_t*>malloc(len(data) or 1)
    cdef PacketRef packet
    cdef Segment segment
    cdef Tunnel tunnel
    cdef Key key
    cdef Brief brief
    if copy == NULL:
        raise MemoryError
    try:
        memcpy(copy, source, size)
        memset(&brief, 0xAA, sizeof(Brief))
        _describe(&packet, copy, size, link_type, wire_len, vlan_tci)
        if not brief_plain(&packet, _SEED, &brief):
            return None
        whole_of_plain(&packet, &brief, &segment, &key)
        look = _segment(&segment), _key(&key), _brief(&brief)
        if decode_packet(&packet, &segment, &tunnel, False) != VD_SEGMENT:
            return look, None
        key_of(&segment, False, False, _SEED, &key)
        brief_of(&segment, &key, &brief)
        return look, (_segment(&segment), _key(&key), _brief(&brief))
    finally:
        free(copy)


cdef tuple _key(const Key* key):
    ends = [((<const char*>key.addr[i])[:16], key.port[i]) for i in range(2)]
    return ends, key.sender, key.ip_version, key.vlan, key.tunnel == NULL, key.hash


cdef dict _brief(const Brief* brief):
    return {
        "hash": brief.hash, "low": brief.low, "high": brief.high, "ports": (brief.port[0], brief.port[1]),
        "seq": brief.seq, "ack": brief.ack, "payload_bytes": brief.payload_bytes, "ip_bytes": brief.ip_bytes,
        "window": brief.window, "flags": brief.flags, "ip_id": brief.ip_id, "vlan": brief.vlan, "sender": brief.sender,
        "ip_version": brief.ip_version,
    }


def quoted(bytes data not None, int link_type, wire_len=None) -> dict | None:
    """What an ICMP error quotes: arguments as for `decode`.

    Returns
    -------
    None where the packet is no ICMP error that quotes a segment. Otherwise a dict: addresses (16 bytes), ports and `seq`
    of the quoted segment; `icmp_type` and `icmp_code`; `unreachable`: it says that the segment did not arrive; `from`
    and `to`: the addresses of the error itself.
    """
    cdef PacketRef packet
    cdef Segment segment
    cdef Tunnel tunnel
    cdef int size, at
    memset(&packet, 0, sizeof(PacketRef))
    packet.data = <const uint8_t*><const char*>data
    packet.captured_len = <uint32_t>len(data)
    packet.wire_len = packet.captured_len if wire_len is None else <uint32_t>max(wire_len, len(data))
    packet.link_type = <uint16_t>link_type
    if decode_packet(&packet, &segment, &tunnel, False) != VD_ICMP_ERROR or not segment.quoted:
        return None
    size, at = (16, 8) if segment.ip_version == 6 else (4, 12)
    return _ends(&segment) | {
        "icmp_type": segment.icmp_type,
        "icmp_code": segment.icmp_code,
        "unreachable": bool(says_unreachable(&segment)),
        "from": (<const char*>segment.options)[at:at + size].ljust(16, b"\0"),
        "to": (<const char*>segment.options)[at + size:at + 2 * size].ljust(16, b"\0"),
    }


def address_text(int version, bytes address not None) -> str:
    """An address of a segment (16 bytes) as rows write it."""
    cdef char text[48]
    cdef const char* packed = address
    if len(address) != 16:
        raise ValueError("an address has 16 bytes")
    if version == 4:
        return text[:format_ipv4(text, <const uint8_t*>packed)].decode("ascii")
    return text[:format_ipv6(text, <const uint8_t*>packed)].decode("ascii")


def packets_between(PacketBatch batch not None, set ends not None, uint16_t flags = 0) -> list:
    """Which packets of a batch are segments between two of the given ends, or ICMP errors that quote one.

    Parameters
    ----------
    ends : a set of bytes: the smaller end's address and the other's, 16 bytes each (IPv4: the first 4, the rest 0), then
        both ports in the same order, as the machine's own uint16. (Smaller: by address, then by port.)
    flags : TCP flags of which a segment must have one; 0 for all segments and ICMP errors.

    Returns
    -------
    Indexes, ascending. An IPv4 and an IPv6 pair may share a key: the answer may hold packets of either.
    """
    cdef Segment segment
    cdef Tunnel tunnel
    cdef Key key
    cdef uint32_t i
    cdef int verdict
    cdef bint asked
    found = []
    for i in range(batch.c.count):
        verdict = decode_packet(&batch.c.packets[i], &segment, &tunnel, False)
        if verdict == VD_SEGMENT:
            asked = not flags or segment.flags & flags
        else:
            asked = not flags and verdict == VD_ICMP_ERROR and segment.quoted
        if asked:
            key_of(&segment, False, False, 0, &key)
            if (<const char*>key.addr)[:36] in ends:
                found.append(i)
    return found


def filtered(bytes code not None, bytes data not None, wire_len=None, vlan_tci=None):
    """What a BPF program (struct bpf_insn, native byte order) says of one packet; arguments as for `decode`.

    Returns
    -------
    bool or None : does the packet pass? None: the program is refused.
    """
    cdef Program program
    cdef PacketRef packet
    cdef uint32_t size = <uint32_t>len(data)
    cdef uint8_t* copy = <uint8_t*>malloc(len(data) or 1)
    program.count = <uint32_t>(len(code) // sizeof(Instruction))
    program.steps = <Instruction*>malloc(len(code) or 1)
    try:
        if copy == NULL or program.steps == NULL:
            raise MemoryError
        memcpy(program.steps, <const char*>code, len(code))
        memcpy(copy, <const char*>data, size)
        _describe(&packet, copy, size, 0, wire_len, vlan_tci)
        return filter_accepts(&program, &packet) if filter_is_sound(&program) else None
    finally:
        free(program.steps)
        free(copy)


def sequence(uint32_t a, uint32_t b) -> tuple:
    """What the core makes of two sequence numbers: the distance from a to b, and whether a <, <=, > and >= b."""
    return seq_distance(a, b), bool(seq_lt(a, b)), bool(seq_le(a, b)), bool(seq_gt(a, b)), bool(seq_ge(a, b))


def layout() -> dict:
    """Sizes (bytes) of what a connection takes, and where the parts of its hot struct begin."""
    cdef Flow flow
    return {
        "Flow": sizeof(Flow),
        "Flow.end": [<char*>&flow.end[0] - <char*>&flow, <char*>&flow.end[1] - <char*>&flow],
        "Facts": sizeof(Facts),
        "Rtt": sizeof(Rtt),
        "AddressPair": sizeof(AddressPair),
        "Extra": sizeof(Extra),
        "Wide": sizeof(Wide),
        "Trouble": sizeof(Trouble),
        "Copies": sizeof(Copies),
        "CopyPair": sizeof(CopyPair),
        "Held": sizeof(Held),
        "Vlans": sizeof(Vlans),
        "Tunnel": sizeof(Tunnel),
        "Slot": sizeof(Slot),
    }


def rtt_buckets(values: list[int]) -> list:
    """The bucket of each duration (ns, 0 to 2**63 - 1) and that bucket's middle."""
    return [(rtt_bucket(value), rtt_bucket_middle(rtt_bucket(value))) for value in values]


def rtt_quantiles(values: list[int], percents: list[int]) -> list[int]:
    """Quantiles of durations (ns; at least one) by the interval table's histogram, and their maximum."""
    cdef RttHistogram histogram
    cdef int64_t value
    memset(&histogram, 0, sizeof(RttHistogram))
    histogram.buckets = <uint64_t*>calloc(RTT_BUCKETS, sizeof(uint64_t))
    if histogram.buckets == NULL:
        raise MemoryError
    for value in values:
        rtt_histogram_add(&histogram, value)
    result = [rtt_quantile(&histogram, percent) for percent in percents] + [histogram.max]
    free(histogram.buckets)
    return result


cdef class Index:
    """The index of connections alone: hashes and record numbers, without records.

    Parameters
    ----------
    slots : a power of two, more than will be inserted.
    """

    longest_probe = PROBE_MAX
    cdef Core* core

    def __cinit__(self, uint32_t slots):
        self.core = <Core*>calloc(1, sizeof(Core))
        if self.core == NULL:
            raise MemoryError
        self.core.table.slots = <Slot*>calloc(slots, sizeof(Slot))
        if self.core.table.slots == NULL:
            raise MemoryError
        self.core.table.mask = slots - 1

    def __dealloc__(self):
        if self.core != NULL:
            free(self.core.table.slots)
            free(self.core)

    def insert(self, uint32_t hash, uint32_t number):
        """Enter a record; its number is above 0 and not in the index."""
        table_insert(&self.core.table, hash, number)

    def remove(self, uint32_t hash, uint32_t number):
        """Take a record out that is in the index."""
        table_remove(&self.core.table, hash, number)

    def slots(self) -> list:
        """(hash, number) of each slot; number 0 where it is empty."""
        cdef uint32_t i
        return [(self.core.table.slots[i].hash, self.core.table.slots[i].flow) for i in range(self.core.table.mask + 1)]

    def crowded(self) -> bool:
        """Whether an insertion looked at more slots than `longest_probe`."""
        return bool(self.core.table.crowded)

    def __len__(self):
        return self.core.table.count
