# What a packet of a link type begins with, and the names of all that the cursor can stand before on its way to IP.
# Numbers: tcpdump.org/linktypes.html, IANA's EtherType list.
from libc.stdint cimport uint16_t, uint32_t

# What the cursor stands before: an EtherType, or one of these.
cdef enum:
    LK_ETHERNET = 0x10000    # Ethernet header
    LK_LLC = 0x10001         # IEEE 802.2 LLC header
    LK_PPP = 0x10002         # PPP protocol field
    LK_PPP_FRAME = 0x10003   # PPP with or without address and control bytes, or Cisco HDLC
    LK_COOKED = 0x10004      # Linux cooked v1 header
    LK_COOKED2 = 0x10005     # Linux cooked v2 header
    LK_FAMILY = 0x10006      # BSD address family, 4 bytes
    LK_IP = 0x10007          # IPv4 or IPv6 by the version field
    LK_DIRECTION = 0x10008   # one byte of direction, then PPP
    LK_PPP_PPPD = 0x10009    # address or direction, control, then PPP
    LK_WLAN = 0x1000A        # IEEE 802.11 header
    LK_RADIOTAP = 0x1000B    # one of the headers that drivers put before it
    LK_PRISM = 0x1000C
    LK_AVS = 0x1000D
    LK_PPI = 0x1000E         # per-packet information, then what it names
    LK_FDDI = 0x1000F
    LK_TOKEN_RING = 0x10010
    LK_ARCNET = 0x10011      # as Linux writes it
    LK_IPOIB = 0x10012
    LK_NFLOG = 0x10013
    LK_UNKNOWN = 0x10014

cdef enum:
    ET_LENGTH_MAX = 1500     # up to here an EtherType field is an IEEE 802.3 length
    ET_MIN = 0x0600
    ET_IPV4 = 0x0800
    ET_BRIDGED = 0x6558      # an Ethernet frame
    ET_VLAN = 0x8100
    ET_IPV6 = 0x86DD
    ET_MPLS = 0x8847
    ET_MPLS_MULTICAST = 0x8848
    ET_PPPOE = 0x8864
    ET_QINQ = 0x88A8
    ET_BACKBONE = 0x88E7
    ET_FABRIC = 0x8903       # Cisco FabricPath
    ET_QINQ_OLD = 0x9100

cdef enum:
    LINKTYPE_ETHERNET = 1


# What a packet of this LINKTYPE_ begins with.
cdef inline uint32_t first_layer(uint16_t link_type) noexcept nogil:
    if link_type == LINKTYPE_ETHERNET:
        return LK_ETHERNET
    elif link_type == 0 or link_type == 108:  # NULL, LOOP
        return LK_FAMILY
    elif link_type == 101 or link_type == 12 or link_type == 14:  # RAW, and DLT_RAW as systems number it
        return LK_IP
    elif link_type == 228:
        return ET_IPV4
    elif link_type == 229:
        return ET_IPV6
    elif link_type == 113:
        return LK_COOKED
    elif link_type == 276:
        return LK_COOKED2
    elif link_type == 9 or link_type == 50 or link_type == 104:  # PPP, PPP_HDLC, C_HDLC
        return LK_PPP_FRAME
    elif link_type == 204:  # PPP_WITH_DIR
        return LK_DIRECTION
    elif link_type == 166:
        return LK_PPP_PPPD
    elif link_type == 51:  # PPP_ETHER
        return ET_PPPOE
    elif link_type == 219:
        return ET_MPLS
    elif link_type == 105:  # IEEE802_11
        return LK_WLAN
    elif link_type == 127:  # IEEE802_11_RADIOTAP
        return LK_RADIOTAP
    elif link_type == 119:
        return LK_PRISM
    elif link_type == 163:
        return LK_AVS
    elif link_type == 192:
        return LK_PPI
    elif link_type == 10:
        return LK_FDDI
    elif link_type == 6:  # IEEE802_5
        return LK_TOKEN_RING
    elif link_type == 129:  # ARCNET_LINUX
        return LK_ARCNET
    elif link_type == 239:
        return LK_NFLOG
    elif link_type == 242:
        return LK_IPOIB
    return LK_UNKNOWN
