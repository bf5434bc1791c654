# The structs that cross files. A packet's way: bytes -> PacketRef (sources) -> Segment (decode) -> Flow (tracker).
# Read this file first.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

# One captured packet. `data` is borrowed from its source and valid until the source is asked for the next batch.
cdef struct PacketRef:
    const uint8_t* data      # link-layer header on; captured_len bytes may be read
    uint32_t captured_len
    uint32_t wire_len        # length on the wire, never below captured_len (with PF_VLAN: captured_len + 4)
    int64_t time_ns          # since 1970; already replaced by the clock where the packet was a lone outlier
    int64_t clock_ns         # the input clock, this packet included
    int64_t stamp_ns         # since 1970, as captured
    int64_t number           # from 1 in its file
    int32_t file_id          # index in the run's list of files; -1 when live
    int32_t interface_id     # index in the run's list of interface names; -1 when there is none
    uint16_t link_type       # LINKTYPE_ value (pcap, pcapng)
    uint16_t vlan_tci        # VLAN tag that the kernel stripped from a live packet, valid with PF_VLAN
    uint8_t flags            # PF_*
    uint8_t tap              # which of the captures that overlap in time; a rotated file goes on as the one before it

cdef enum:
    PF_STEP_BACK = 1         # after this packet the input clock steps back to time_ns
    PF_VLAN = 2              # vlan_tci holds an outermost tag that is not in the bytes

cdef enum:
    BATCH_PACKETS = 256

cdef struct Batch:
    uint32_t count
    PacketRef packets[BATCH_PACKETS]

# TCP flags as in the header (RFC 9293 section 3.1); TH_AE is the former NS bit (RFC 9768).
cdef enum:
    TH_FIN = 0x01
    TH_SYN = 0x02
    TH_RST = 0x04
    TH_PSH = 0x08
    TH_ACK = 0x10
    TH_URG = 0x20
    TH_ECE = 0x40
    TH_CWR = 0x80
    TH_AE = 0x100

# Result of decoding one packet: a segment, or the name under which it is skipped. The skips stand in the order of
# schema.SKIPS (a test compares them).
cdef enum Verdict:
    VD_INSIDE = -2           # within decode only: a protocol that may be a tunnel
    VD_SEGMENT = -1
    VD_NOT_IP = 0
    VD_NOT_TCP = 1
    VD_ICMP_ERROR = 2
    VD_FRAGMENT = 3
    VD_HEADER_CUT = 4
    VD_BAD_LINK = 5
    VD_BAD_IP = 6
    VD_BAD_TCP = 7
    VD_SAME_ENDS = 8
    VD_BAD_TUNNEL = 9
    VD_TUNNEL_DEPTH = 10
    VD_ENCRYPTED = 11
    VD_AGGREGATE = 12
    VD_BAD_CHECKSUM = 13
    VD_FILTERED = 14
    VD_OUTSIDE_WINDOW = 15
    VD_CAPTURE_DUPLICATE = 16    # judged by the tracker, not by the decoder
    VD_LINK_TYPE = 17        # link layer not decoded: counted as link_type_N
    VD_COUNT = 18

# The outermost tunnel around a segment.
cdef struct Tunnel:
    int64_t id               # key, VSID, call, session, VNI or TEID; NO_TUNNEL_ID where it has none
    uint8_t src[16]          # of the outermost IP header, as in Segment
    uint8_t dst[16]
    uint8_t ip_version       # of that header
    uint8_t kind             # TUN_* (declared.pxd)

cdef enum:
    NO_TUNNEL_ID = -1

# One TCP segment, host byte order. Addresses are network order; IPv4 uses the first 4 bytes, the rest is 0.
cdef struct Segment:
    uint8_t src[16]
    uint8_t dst[16]
    uint16_t src_port
    uint16_t dst_port
    uint32_t seq
    uint32_t ack             # 0 without TH_ACK
    uint32_t payload_bytes   # by the IP header, never by the captured length
    uint32_t ip_bytes        # IP header and everything it announces
    uint16_t window          # as sent, not scaled
    uint16_t flags           # TH_*
    uint8_t ip_version       # 4 or 6
    uint8_t ttl              # TTL or hop limit
    uint8_t dont_fragment    # 0 or 1; 0 for IPv6
    uint8_t has_vlan         # 0 or 1
    uint16_t vlan_id         # outermost VLAN ID of the outermost frame
    uint16_t ip_id           # IPv4 identification; 0 for IPv6
    uint16_t options_len     # captured bytes of TCP options
    uint8_t quoted           # of VD_ICMP_ERROR: it quotes a segment (icmp.pxd)
    uint8_t icmp_type        # valid with `quoted`, like icmp_code
    uint8_t icmp_code
    const uint8_t* options   # borrowed like the packet; with `quoted` the IP header of the ICMP error itself
    const Tunnel* tunnel     # NULL: not in a tunnel
    const uint8_t* ip        # the IP header next to TCP, likewise; its fixed part was captured

# TCP options of one segment, read only where they matter (SYN, SYN-ACK, timestamp echoes).
cdef struct Options:
    uint64_t kinds           # bit k: kind k seen (0 to 62)
    uint32_t ts_val
    uint32_t ts_ecr
    uint16_t mss
    uint8_t window_scale     # as sent; above 14 counts as 14 (RFC 7323 section 2.3) where it is used
    uint8_t has              # OPT_*
    uint8_t fast_open        # 0 none, 1 cookie request, 2 cookie (RFC 7413; also kind 254 with 0xF989)

cdef enum:
    OPT_MSS = 1
    OPT_WINDOW_SCALE = 2
    OPT_SACK_PERMITTED = 4
    OPT_TIMESTAMPS = 8
    OPT_MPTCP = 16
