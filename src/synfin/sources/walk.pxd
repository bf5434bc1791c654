# One ring: from block to block and from frame to frame, in place. What comes out is judged by the ring's own clock;
# ring.pyx merges several. A block goes back to the kernel only when the batch that borrows from it has been tracked.
from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from synfin._core.types cimport PF_VLAN, PacketRef
from synfin.sources.clock cimport WAIT_PUSHES, SourceClock, clock_judge, clock_take, clock_wait, clock_wants
from synfin.sources.packet_mmap cimport (
    BLOCK_BYTES,
    FRAME_ALIGNMENT,
    FRAME_BYTES,
    TP_STATUS_KERNEL,
    TP_STATUS_TS_RAW_HARDWARE,
    TP_STATUS_USER,
    TP_STATUS_VLAN_VALID,
    BlockHeader,
    FrameHeader,
    load_acquire,
    prefetch_read,
    store_release,
)

cdef enum Walked:
    WK_PACKET = 0
    WK_EMPTY = 1             # the kernel has not handed over the next block
    WK_BATCH = 2             # the batch must be tracked before its block, or its copies, can go
    WK_BROKEN = 3            # a length in the ring is impossible
    WK_MEMORY = 4

cdef enum:
    PREFETCH = 1024          # bytes before a frame that its lines are asked for; of long frames, two frames before
    AHEAD = 32               # packets of a ring that are framed before their turn among several rings has come

cdef struct Walk:
    uint8_t* base
    uint32_t block_bytes
    uint32_t blocks
    uint32_t at              # the block that comes next, or that is held
    uint32_t left            # packets of the held block that were not looked at
    uint32_t offset          # of the next of them, from the block's start; a header fits there while there is one
    int32_t interface_id
    uint16_t link_type
    bint held                # the block is ours, and not all of it has been tracked
    uint32_t ahead_at        # of the packets that are framed and judged, the next; while there is one its block is held
    uint32_t ahead_count
    PacketRef ahead[AHEAD]
    int64_t since_ns         # since when none of its packets could go for an empty ring; 0: that is not so
    int64_t packets
    int64_t bytes            # captured bytes of them
    int64_t card_stamps      # of them, those with the card's timestamp
    int64_t given_back       # blocks
    Walked failed            # WK_BROKEN, WK_MEMORY; else 0
    SourceClock source


cdef inline BlockHeader* _block(const Walk* w) noexcept nogil:
    return <BlockHeader*>(w.base + <uint64_t>w.at * w.block_bytes)


cdef inline void _give_back(Walk* w) noexcept nogil:
    store_release(&_block(w).status, TP_STATUS_KERNEL)
    w.held = False
    w.given_back += 1
    w.at = w.at + 1 if w.at + 1 < w.blocks else 0


# Has the kernel handed over the next block?
cdef inline bint walk_is_ready(const Walk* w) noexcept nogil:
    return load_acquire(&_block(w).status) & TP_STATUS_USER != 0


# Is a packet framed whose turn has not come?
cdef inline bint walk_has_ahead(const Walk* w) noexcept nogil:
    return w.ahead_at < w.ahead_count


# The packets of the last batch have been tracked.
cdef inline void walk_begin(Walk* w) noexcept nogil:
    w.source.pushes = 0
    if w.held and w.left == 0 and not walk_has_ahead(w):
        _give_back(w)


# Could a frame's header stand here?
cdef inline bint _has_room(const Walk* w, uint64_t offset) noexcept nogil:
    return BLOCK_BYTES <= offset <= w.block_bytes - FRAME_BYTES and offset % FRAME_ALIGNMENT == 0


# Takes the next block if it is ours.
cdef inline bint _hold(Walk* w) noexcept nogil:
    cdef BlockHeader* block = _block(w)
    if not walk_is_ready(w):
        return False
    w.held = True
    w.left = block.packets
    w.offset = block.first_offset
    if w.left and not _has_room(w, w.offset):
        w.failed = WK_BROKEN
    return True


# Do the lengths of a frame stay inside its block, of which `space` bytes are left?
cdef inline bint _frame_fits(const FrameHeader* f, uint64_t space) noexcept nogil:
    return (f.data_offset >= FRAME_BYTES and <uint64_t>f.data_offset + f.captured_len <= space
            and f.wire_len <= <uint32_t>INT32_MAX)


# And is there room for the header of the one behind it?
cdef inline bint _next_fits(const FrameHeader* f, uint64_t space) noexcept nogil:
    return FRAME_BYTES <= f.next_offset <= space - FRAME_BYTES and f.next_offset % FRAME_ALIGNMENT == 0


cdef inline int64_t _time_of(const FrameHeader* f) noexcept nogil:
    return <int64_t>f.seconds * 1000000000 + f.nanoseconds       # seconds end in 2106, before TIME_MAX_NS


cdef inline uint32_t _card_stamps(const FrameHeader* f) noexcept nogil:
    return 1 if f.status & TP_STATUS_TS_RAW_HARDWARE else 0


# Everything of a packet but its clock, flags and number. A tag that was taken off stands in vlan_tci; returns PF_VLAN
# where there was one.
cdef inline uint8_t _describe(const Walk* w, const FrameHeader* f, PacketRef* p) noexcept nogil:
    cdef uint32_t tagged = 1 if f.status & TP_STATUS_VLAN_VALID else 0
    p.data = <const uint8_t*>f + f.data_offset
    p.captured_len = f.captured_len
    p.wire_len = max(f.wire_len, f.captured_len) + 4 * tagged
    p.time_ns = p.stamp_ns = _time_of(f)
    p.file_id = -1
    p.interface_id = w.interface_id
    p.tap = <uint8_t>w.interface_id
    p.link_type = w.link_type
    p.vlan_tci = <uint16_t>f.vlan_tci if tagged else 0
    return <uint8_t>(PF_VLAN * tagged)


# The next frame as the kernel stamped it. OUT vlan: PF_VLAN or 0, apart from p.flags, which the clock must find empty.
# `borrowed`: the batch holds packets, so that no block may go back.
cdef inline Walked _next_frame(Walk* w, bint borrowed, PacketRef* p, uint8_t* vlan) noexcept nogil:
    cdef const FrameHeader* f
    cdef uint64_t space
    while True:
        if not w.held and not _hold(w):
            return WK_EMPTY
        while w.left and not w.failed:
            f = <const FrameHeader*>(<const uint8_t*>_block(w) + w.offset)
            space = w.block_bytes - w.offset
            if not _frame_fits(f, space) or (w.left > 1 and not _next_fits(f, space)):
                w.failed = WK_BROKEN
                break
            vlan[0] = _describe(w, f, p)
            w.left -= 1
            w.offset += f.next_offset
            w.packets += 1
            w.bytes += p.captured_len
            w.card_stamps += _card_stamps(f)
            p.number = w.packets
            p.flags = 0
            return WK_PACKET
        if w.failed:
            return w.failed
        if borrowed:
            return WK_BATCH
        _give_back(w)


# The ring's next packet. OUT p: judged, clock_ns the ring's clock.
cdef inline Walked walk_next(Walk* w, bint borrowed, PacketRef* p) noexcept nogil:
    cdef uint8_t vlan = 0
    cdef Walked found
    while not w.failed:
        if w.source.count and w.source.count >= clock_wants(&w.source):
            clock_judge(&w.source, p)
            return WK_PACKET
        if w.source.pushes >= WAIT_PUSHES:
            return WK_BATCH
        found = _next_frame(w, borrowed, p, &vlan)
        if found != WK_PACKET:
            return found
        if w.source.count == 0 and clock_take(&w.source, p):
            p.flags = vlan
            return WK_PACKET
        p.flags = vlan
        if not clock_wait(&w.source, p):
            w.failed = WK_MEMORY
    return w.failed


# The usual stretch of a block: frames that end before the next one begins, with timestamps in [low_ns, high_ns), all but
# the block's last. Gives out as many as there are, at most `room`, each but for its clock; stops before the first that is
# not so, which walk_next takes. Before: the block is held, and two packets of it at least are left.
cdef inline uint32_t walk_stretch(Walk* w, int64_t low_ns, int64_t high_ns, PacketRef* out, uint32_t room) noexcept nogil:
    cdef const uint8_t* at = <const uint8_t*>_block(w) + w.offset
    cdef const uint8_t* last = <const uint8_t*>_block(w) + w.block_bytes - FRAME_BYTES   # a header may begin here
    cdef const FrameHeader* f
    cdef PacketRef* p = out
    cdef const PacketRef* end = out + min(room, w.left - 1)
    cdef uint32_t count, distance
    cdef int64_t time_ns, number = w.packets, captured = 0, stamped = 0
    while p < end:
        f = <const FrameHeader*>at
        time_ns = _time_of(f)
        # As _frame_fits and _next_fits in fewer steps.
        if (f.data_offset < FRAME_BYTES or <uint64_t>f.data_offset + f.captured_len > f.next_offset
                or f.next_offset > <uint64_t>(last - at) or f.next_offset % FRAME_ALIGNMENT
                or f.wire_len > <uint32_t>INT32_MAX or not low_ns <= time_ns < high_ns):
            break
        distance = max(<uint32_t>PREFETCH, 2 * f.next_offset)
        prefetch_read(at + distance)
        prefetch_read(at + distance + 64)
        p.flags = _describe(w, f, p)
        captured += f.captured_len
        stamped += _card_stamps(f)
        number += 1
        p.number = number
        at += f.next_offset
        p += 1
    count = <uint32_t>(p - out)
    w.left -= count
    w.offset = <uint32_t>(at - <const uint8_t*>_block(w))
    w.packets += count
    w.bytes += captured
    w.card_stamps += stamped
    return count
