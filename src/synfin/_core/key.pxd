# Who talks to whom: the unordered pair of (address, port), which of the two sent the packet, and a keyed hash.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from synfin._core.bytes cimport be32
from synfin._core.types cimport NO_TUNNEL_ID, Segment, Tunnel

cdef extern from "core.h" nogil:
    uint64_t mix64(uint64_t a, uint64_t b)
    int address_order(const uint8_t* a, const uint8_t* b, int if_equal)
    const uint64_t MIX_A, MIX_B, MIX_C, FNV_OFFSET, FNV_PRIME

cdef enum:
    NO_VLAN = 0xFFFF

# addr[0] and port[0] are the smaller end's (address bytes, then port). `sender` is 0 or 1.
cdef struct Key:
    uint8_t addr[2][16]
    uint16_t port[2]
    const Tunnel* tunnel     # kind and id are part of the key only where asked for; else NULL
    uint16_t vlan            # likewise; else NO_VLAN
    uint8_t sender
    uint8_t ip_version
    uint32_t hash

cdef inline uint64_t _ports_word(const uint16_t* port, uint16_t vlan, uint8_t version) noexcept nogil:
    return (<uint64_t>port[0] << 48) | (<uint64_t>port[1] << 32) | (<uint64_t>vlan << 16) | version

cdef inline uint32_t _fold(uint64_t word) noexcept nogil:
    return <uint32_t>(word ^ (word >> 32))

cdef inline uint64_t _mix_ipv4(uint32_t low, uint32_t high, uint64_t ports, uint64_t seed) noexcept nogil:
    return mix64((<uint64_t>low << 32 | high) ^ seed, ports ^ MIX_A)

# As key_hash, for IPv4 without a tunnel. `low` and `high` are the addresses of end 0 and 1.
cdef inline uint32_t hash_ipv4(uint32_t low, uint32_t high, const uint16_t* port, uint16_t vlan,
                               uint64_t seed) noexcept nogil:
    return _fold(_mix_ipv4(low, high, _ports_word(port, vlan, 4), seed))

# Before: everything but `hash` is set.
cdef inline uint32_t key_hash(const Key* key, uint64_t seed) noexcept nogil:
    cdef uint64_t a[2]
    cdef uint64_t b[2]
    cdef uint64_t ports = _ports_word(key.port, key.vlan, key.ip_version)
    cdef uint64_t mixed
    if key.ip_version == 4:
        mixed = _mix_ipv4(be32(key.addr[0]), be32(key.addr[1]), ports, seed)
    else:
        memcpy(a, key.addr[0], 16)
        memcpy(b, key.addr[1], 16)
        mixed = mix64(a[0] ^ seed, a[1] ^ MIX_B) ^ mix64(b[0] ^ MIX_C, b[1] ^ seed)
        mixed = mix64(mixed ^ seed, ports ^ MIX_A)
    if key.tunnel != NULL:
        mixed = mix64(mixed ^ <uint64_t>key.tunnel.id, key.tunnel.kind ^ MIX_B)
    return _fold(mixed)

cdef inline void key_of(const Segment* segment, bint with_vlan, bint with_tunnel, uint64_t seed,
                        Key* key) noexcept nogil:
    key.sender = address_order(segment.src, segment.dst, segment.src_port > segment.dst_port)
    memcpy(key.addr[key.sender], segment.src, 16)
    memcpy(key.addr[1 - key.sender], segment.dst, 16)
    key.port[key.sender] = segment.src_port
    key.port[1 - key.sender] = segment.dst_port
    key.ip_version = segment.ip_version
    key.vlan = segment.vlan_id if with_vlan and segment.has_vlan else NO_VLAN
    key.tunnel = segment.tunnel if with_tunnel else NULL
    key.hash = key_hash(key, seed)

# The record's identifier (SPEC 4): FNV-1a 64 of version, both ends, the optional key parts, and the first packet's
# timestamp and sequence number, all big-endian, top bit cleared. A tunnel is its kind (1 byte) and its id (8 bytes), all
# bits set where there is none.
cdef inline int64_t flow_id_of(const Key* key, bint with_vlan, bint with_tunnel, int64_t time_ns,
                               uint32_t seq) noexcept nogil:
    cdef uint64_t h = FNV_OFFSET
    cdef uint64_t tunnel_id = <uint64_t>NO_TUNNEL_ID
    cdef int end, i
    cdef int width = 4 if key.ip_version == 4 else 16
    h = (h ^ key.ip_version) * FNV_PRIME
    for end in range(2):
        for i in range(width):
            h = (h ^ key.addr[end][i]) * FNV_PRIME
        h = (h ^ (key.port[end] >> 8)) * FNV_PRIME
        h = (h ^ (key.port[end] & 0xFF)) * FNV_PRIME
    if with_vlan:
        h = (h ^ (key.vlan >> 8)) * FNV_PRIME
        h = (h ^ (key.vlan & 0xFF)) * FNV_PRIME
    if with_tunnel:
        if key.tunnel != NULL:
            tunnel_id = <uint64_t>key.tunnel.id
        h = (h ^ (key.tunnel.kind if key.tunnel != NULL else 0xFF)) * FNV_PRIME
        for i in range(8):
            h = (h ^ ((tunnel_id >> (56 - 8 * i)) & 0xFF)) * FNV_PRIME
    for i in range(8):
        h = (h ^ ((<uint64_t>time_ns >> (56 - 8 * i)) & 0xFF)) * FNV_PRIME
    for i in range(4):
        h = (h ^ ((seq >> (24 - 8 * i)) & 0xFF)) * FNV_PRIME
    return <int64_t>(h >> 63 << 63 ^ h)
