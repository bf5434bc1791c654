# The memory of a TPACKET_V3 ring as the kernel lays it out (linux/if_packet.h; Documentation/networking/
# packet_mmap.rst). It is declared here, so that no kernel headers are needed to build; it is part of the kernel's ABI.
# Integers are in host byte order unless said otherwise.
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

# The first bytes of a block: struct tpacket_block_desc with its struct tpacket_hdr_v1.
cdef struct BlockHeader:
    uint32_t version
    uint32_t offset_to_private
    uint32_t status          # TP_STATUS_USER: the block is ours; TP_STATUS_KERNEL gives it back
    uint32_t packets
    uint32_t first_offset    # from the block's start
    uint32_t used_bytes
    uint64_t number
    uint32_t first_s
    uint32_t first_ns
    uint32_t last_s
    uint32_t last_ns

# struct tpacket3_hdr, and behind it struct sockaddr_ll at the next multiple of 16.
cdef struct FrameHeader:
    uint32_t next_offset     # from this frame's start; 0 in the last one
    uint32_t seconds
    uint32_t nanoseconds
    uint32_t captured_len
    uint32_t wire_len        # without a tag that was stripped
    uint32_t status          # TP_STATUS_*
    uint16_t data_offset     # of the link-layer header, or, in a cooked ring, of the network header
    uint16_t network_offset
    uint32_t hash
    uint32_t vlan_tci
    uint16_t vlan_tpid
    uint16_t reserved
    uint8_t reserved2[8]
    uint16_t family
    uint16_t protocol        # network byte order
    int32_t interface
    uint16_t hardware_type
    uint8_t direction        # PACKET_*
    uint8_t address_len
    uint8_t address[8]

cdef enum:
    TP_STATUS_KERNEL = 0
    TP_STATUS_USER = 1
    TP_STATUS_VLAN_VALID = 1 << 4
    TP_STATUS_TS_RAW_HARDWARE = 0x80000000
    FRAME_BYTES = 68         # sizeof(FrameHeader)
    BLOCK_BYTES = 48         # sizeof(BlockHeader)
    FRAME_ALIGNMENT = 8

cdef extern from *:
    """
    #define synfin_load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define synfin_prefetch_read(p) __builtin_prefetch((p))
    #define synfin_store_release(p, value) __atomic_store_n((p), (value), __ATOMIC_RELEASE)
    """
    uint32_t load_acquire "synfin_load_acquire"(const uint32_t* p) noexcept nogil
    void prefetch_read "synfin_prefetch_read"(const void* p) noexcept nogil
    void store_release "synfin_store_release"(uint32_t* p, uint32_t value) noexcept nogil
