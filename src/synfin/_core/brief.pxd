# What nearly every segment is tracked by, in one cache line: so a batch on its way takes little of the first level of
# cache, and whole segments are only made of packets that need them.
from libc.stdint cimport int8_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from synfin._core.bytes cimport be16, be32
from synfin._core.ip cimport IP_TCP
from synfin._core.key cimport NO_VLAN, Key, hash_ipv4
from synfin._core.linktype cimport LINKTYPE_ETHERNET
from synfin._core.types cimport PF_VLAN, TH_ACK, VD_SEGMENT, PacketRef, Segment

cdef extern from "core.h" nogil:
    uint64_t big_endian_64(const uint8_t* p)

# As in Segment and Key, where nothing else is said.
cdef struct Brief:
    uint32_t hash
    uint32_t flow            # the record that the index named, 0: none
    uint32_t low             # IPv4: address of end 0
    uint32_t high            # IPv4: address of end 1
    uint16_t port[2]
    uint32_t seq
    uint32_t ack
    uint32_t payload_bytes
    uint32_t ip_bytes
    uint16_t window
    uint16_t flags
    uint16_t ip_id
    uint16_t vlan            # NO_VLAN: it had none
    const uint8_t* ip        # the IP header
    int8_t verdict           # VD_*; the rest is set for VD_SEGMENT only, `hash` also for a quote
    uint8_t sender
    uint8_t ip_version
    uint8_t whole            # 1: segment and key are there, too
    uint8_t turn             # 1: it may open or close the connection (stages.pxd)

# Before: verdict is VD_SEGMENT.
cdef inline void brief_of(const Segment* segment, const Key* key, Brief* brief) noexcept nogil:
    brief.hash = key.hash
    brief.low = be32(key.addr[0])
    brief.high = be32(key.addr[1])
    memcpy(brief.port, key.port, 4)
    brief.seq = segment.seq
    brief.ack = segment.ack
    brief.payload_bytes = segment.payload_bytes
    brief.ip_bytes = segment.ip_bytes
    brief.window = segment.window
    brief.flags = segment.flags
    brief.ip_id = segment.ip_id
    brief.vlan = segment.vlan_id if segment.has_vlan else NO_VLAN
    brief.ip = segment.ip
    brief.sender = key.sender
    brief.ip_version = segment.ip_version

# Segment and key of a plain packet, out of its brief. Before: brief_plain set it from this packet.
cdef inline void whole_of_plain(const PacketRef* packet, const Brief* brief, Segment* segment, Key* key) noexcept nogil:
    cdef const uint8_t* p = brief.ip
    cdef uint32_t captured = min(packet.captured_len - 14, brief.ip_bytes)
    memset(segment, 0, sizeof(Segment))
    memcpy(segment.src, p + 12, 4)
    memcpy(segment.dst, p + 16, 4)
    segment.src_port = brief.port[brief.sender]
    segment.dst_port = brief.port[1 - brief.sender]
    segment.seq = brief.seq
    segment.ack = brief.ack
    segment.payload_bytes = brief.payload_bytes
    segment.ip_bytes = brief.ip_bytes
    segment.window = brief.window
    segment.flags = brief.flags
    segment.ip_version = 4
    segment.ttl = p[8]
    segment.dont_fragment = (p[6] >> 6) & 1
    segment.ip_id = brief.ip_id
    segment.options = p + 40
    segment.options_len = <uint16_t>(min(brief.ip_bytes - brief.payload_bytes, captured) - 40)
    segment.ip = p
    memset(key, 0, sizeof(Key))
    memcpy(key.addr[brief.sender], p + 12, 4)
    memcpy(key.addr[1 - brief.sender], p + 16, 4)
    memcpy(key.port, brief.port, 4)
    key.vlan = NO_VLAN
    key.sender = brief.sender
    key.ip_version = 4
    key.hash = brief.hash

# The plain packet, most of all traffic: untagged Ethernet, IPv4 without options and fragments, all of both fixed headers
# captured. True: the brief is set, as decode, key_of (without VLAN and tunnel) and brief_of would set it. False: they
# decide. Which end sends cannot be predicted, so nothing branches on it.
cdef inline bint brief_plain(const PacketRef* packet, uint64_t seed, Brief* brief) noexcept nogil:
    cdef const uint8_t* p = packet.data
    cdef uint64_t head, middle, src, dst, first, second
    cdef uint32_t size, total, tail
    if packet.captured_len < 54 or packet.link_type != LINKTYPE_ETHERNET or packet.flags & PF_VLAN:
        return False
    head = big_endian_64(p + 12)         # EtherType, version and header length, TOS, total length, identification
    middle = big_endian_64(p + 20)       # flags and fragment offset, TTL, protocol, checksum, half of the source
    tail = be32(p + 46)                  # data offset, flags, window
    src = (<uint64_t>be32(p + 26) << 16) | be16(p + 34)
    dst = (<uint64_t>be32(p + 30) << 16) | be16(p + 36)
    total = (head >> 16) & 0xFFFF
    size = 20 + (tail >> 28) * 4
    if (head >> 40 != 0x080045 or middle & <uint64_t>0x3FFF00FF00000000 != <uint64_t>IP_TCP << 32
            or size < 40 or total < size or src == dst):
        return False
    brief.sender = src > dst
    first = dst if src > dst else src
    second = src if src > dst else dst
    brief.low = first >> 16
    brief.high = second >> 16
    brief.port[0] = first & 0xFFFF
    brief.port[1] = second & 0xFFFF
    brief.hash = hash_ipv4(brief.low, brief.high, brief.port, NO_VLAN, seed)
    brief.seq = be32(p + 38)
    brief.flags = (tail >> 16) & 0x01FF
    brief.ack = be32(p + 42) if brief.flags & TH_ACK else 0
    brief.payload_bytes = total - size
    brief.ip_bytes = total
    brief.window = tail & 0xFFFF
    brief.ip_id = head & 0xFFFF
    brief.vlan = NO_VLAN
    brief.ip = p + 14
    brief.verdict = VD_SEGMENT
    brief.ip_version = 4
    brief.whole = 0
    return True
