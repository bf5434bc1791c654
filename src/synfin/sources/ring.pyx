"""The packets of a TPACKET_V3 ring, walked in place: the compiled half of a live source.

Python (live.py) opens the socket, maps the ring, waits and reads the kernel's counters; everything per packet is here.
Nothing is copied: a packet's bytes lie in the kernel's block until the batch that names them has been tracked, and only
then the block goes back.
"""

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport INT32_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from synfin._core.batch cimport PacketBatch
from synfin._core.types cimport BATCH_PACKETS, PF_VLAN, Batch, PacketRef
from synfin.sources.clock cimport (
    CE_COUNT,
    WAIT_PUSHES,
    ClockEvent,
    ClockLog,
    InputClock,
    SourceClock,
    clock_free,
    clock_judge,
    clock_take,
    clock_wait,
    clock_wants,
    input_clock_take,
)
from synfin.sources.merge import EVENT_KINDS
from synfin.sources.packet_mmap cimport (
    BLOCK_BYTES,
    FRAME_ALIGNMENT,
    FRAME_BYTES,
    PACKET_OUTGOING,
    TP_STATUS_KERNEL,
    TP_STATUS_USER,
    TP_STATUS_VLAN_VALID,
    BlockHeader,
    FrameHeader,
    load_acquire,
    store_release,
)

cdef enum Walked:
    WK_PACKET = 0
    WK_EMPTY = 1             # the kernel has not handed over the next block
    WK_BATCH = 2             # the batch must be tracked before its block can go back
    WK_BROKEN = 3            # a length in the ring is impossible
    WK_MEMORY = 4

cdef struct Walk:
    uint8_t* base
    uint32_t block_bytes
    uint32_t blocks
    uint32_t at              # the block that comes next, or that is held
    bint held                # the block is ours, and not all of it has been tracked
    uint32_t left            # packets of the held block that were not looked at
    uint32_t offset          # of the next of them, from the block's start
    uint16_t link_type
    bint skip_outgoing
    int64_t packets
    int64_t bytes            # captured bytes of them
    int64_t given_back       # blocks
    Walked failed            # WK_BROKEN, WK_MEMORY; else 0
    SourceClock source
    InputClock input
    ClockLog log


cdef inline BlockHeader* _block(Walk* w) noexcept nogil:
    return <BlockHeader*>(w.base + <uint64_t>w.at * w.block_bytes)


cdef inline void _give_back(Walk* w) noexcept nogil:
    store_release(&_block(w).status, TP_STATUS_KERNEL)
    w.held = False
    w.given_back += 1
    w.at = w.at + 1 if w.at + 1 < w.blocks else 0


# Takes the next block if it is ours.
cdef inline bint _hold(Walk* w) noexcept nogil:
    cdef BlockHeader* block = _block(w)
    if not load_acquire(&block.status) & TP_STATUS_USER:
        return False
    w.held = True
    w.left = block.packets
    w.offset = block.first_offset
    return True


# Could a frame's header stand here?
cdef inline bint _has_room(const Walk* w, uint64_t offset) noexcept nogil:
    return BLOCK_BYTES <= offset <= w.block_bytes - FRAME_BYTES and offset % FRAME_ALIGNMENT == 0


# The next frame of the held block, which has one left. OUT p: everything but its clock and flags. Returns NULL where a
# length or an offset points outside the block.
cdef inline const FrameHeader* _frame(Walk* w, PacketRef* p) noexcept nogil:
    cdef const FrameHeader* f
    if not _has_room(w, w.offset):
        return NULL
    f = <const FrameHeader*>(<const uint8_t*>_block(w) + w.offset)
    if (f.data_offset < FRAME_BYTES or <uint64_t>w.offset + f.data_offset + f.captured_len > w.block_bytes
            or f.wire_len > <uint32_t>INT32_MAX):
        return NULL
    w.left -= 1
    if w.left and (f.next_offset < FRAME_BYTES or not _has_room(w, <uint64_t>w.offset + f.next_offset)):
        return NULL
    w.offset += f.next_offset
    p.data = <const uint8_t*>f + f.data_offset
    p.captured_len = f.captured_len
    p.wire_len = max(f.wire_len, f.captured_len)
    p.time_ns = <int64_t>f.seconds * 1000000000 + f.nanoseconds    # seconds end in 2106, before TIME_MAX_NS
    p.stamp_ns = p.time_ns
    p.file_id = -1
    p.interface_id = 0
    p.tap = 0
    p.link_type = w.link_type
    p.vlan_tci = 0
    p.flags = 0
    return f


# The next packet, as the kernel stamped it. OUT vlan: PF_VLAN where vlan_tci holds its tag, else 0; apart from
# p.flags, which the clock must find empty.
cdef Walked _next(Walk* w, const Batch* b, PacketRef* p, uint8_t* vlan) noexcept nogil:
    cdef const FrameHeader* f
    while True:
        if not w.held and not _hold(w):
            return WK_EMPTY
        while w.left:
            f = _frame(w, p)
            if f == NULL:
                w.failed = WK_BROKEN
                return WK_BROKEN
            if w.skip_outgoing and f.direction == PACKET_OUTGOING:
                continue
            w.packets += 1
            w.bytes += p.captured_len
            p.number = w.packets
            vlan[0] = 0
            if f.status & TP_STATUS_VLAN_VALID:
                vlan[0] = PF_VLAN
                p.vlan_tci = <uint16_t>f.vlan_tci
                p.wire_len += 4
            return WK_PACKET
        if b.count:
            return WK_BATCH
        _give_back(w)


cdef inline void _judge(Walk* w, Batch* b) noexcept nogil:
    clock_judge(&w.source, &b.packets[b.count])
    input_clock_take(&w.input, &w.source, &b.packets[b.count])
    b.count += 1


# Fills the batch with packets of the ready blocks, of which it borrows at most one.
cdef void _walk(Walk* w, Batch* b) noexcept nogil:
    cdef PacketRef* p
    cdef uint8_t vlan = 0
    while b.count < BATCH_PACKETS and w.source.pushes < WAIT_PUSHES and not w.failed:
        p = &b.packets[b.count]
        if w.source.count and w.source.count >= clock_wants(&w.source):
            _judge(w, b)
            continue
        if _next(w, b, p, &vlan) != WK_PACKET:
            return
        if w.source.count == 0 and clock_take(&w.source, p):
            p.flags = vlan
            input_clock_take(&w.input, &w.source, p)
            b.count += 1
            continue
        p.flags = vlan
        if not clock_wait(&w.source, p):
            w.failed = WK_MEMORY


@cython.final
cdef class Ring:
    """A ring mapped from the kernel.

    Parameters
    ----------
    memory : a writable buffer, the blocks one behind the other; held until `close`.
    block_bytes : length of a block, a multiple of 8.
    link_type : LINKTYPE_ value of what the ring delivers.
    skip_outgoing : leave out packets that the host sends (the loopback interface shows each of them twice).
    """

    cdef Walk* w
    cdef Py_buffer _memory

    def __cinit__(self, memory not None, uint32_t block_bytes, uint16_t link_type, bint skip_outgoing=False):
        self.w = <Walk*>calloc(1, sizeof(Walk))
        if self.w == NULL:
            raise MemoryError
        self.w.skip_outgoing = skip_outgoing
        self.w.source.log = self.w.input.log = &self.w.log
        self.map(memory, block_bytes, link_type)

    def __dealloc__(self):
        if self.w != NULL:
            self.close()
            clock_free(&self.w.source)
            free(self.w)

    def map(self, memory not None, uint32_t block_bytes, uint16_t link_type):
        """Go on with another ring, as its first block; clock and counts go on. Packets that were given out are void."""
        self.close()
        PyObject_GetBuffer(memory, &self._memory, PyBUF_WRITABLE)
        self.w.base = <uint8_t*>self._memory.buf
        if block_bytes < BLOCK_BYTES + FRAME_BYTES or (block_bytes | <uint64_t>self.w.base) % FRAME_ALIGNMENT:
            raise ValueError("the blocks are too short or not aligned")
        if self._memory.len // block_bytes == 0 or self._memory.len // block_bytes > INT32_MAX:
            raise ValueError("the memory holds no block, or too many")
        self.w.block_bytes = block_bytes
        self.w.blocks = <uint32_t>(self._memory.len // block_bytes)
        self.w.link_type = link_type
        self.w.at = 0
        self.w.held = False

    def close(self):
        """Let go of the memory. Packets that were given out are void afterwards."""
        if self.w.base != NULL:
            self.w.base = NULL
            PyBuffer_Release(&self._memory)

    def begin(self, PacketBatch batch not None):
        """Empty the batch, whose packets have been tracked, and give back the block that it borrowed from if that was
        its end.
        """
        self._check()
        batch.c.count = 0
        self.w.source.pushes = 0
        if self.w.held and self.w.left == 0:
            _give_back(self.w)

    def walk(self, PacketBatch batch not None):
        """Add packets of blocks that the kernel has handed over. Returns whether the batch holds any."""
        self._check()
        with nogil:
            _walk(self.w, &batch.c)
        return batch.c.count > 0

    def settle(self, PacketBatch batch not None):
        """Add the packets that wait to be judged by a next one, as at the end of a file. Into an empty batch only."""
        while self.w.source.count:
            _judge(self.w, &batch.c)

    def idle(self, int64_t clock_ns):
        """Let the clock reach `clock_ns` without a packet; nothing happens before the first packet."""
        if self.w.source.started and clock_ns > self.w.input.now_ns:
            self.w.source.now_ns = self.w.input.now_ns = clock_ns

    cdef int _check(self) except -1:
        if self.w.base == NULL:
            raise ValueError("the ring is closed")
        return 0

    @property
    def ready(self):
        """Whether the kernel has handed over a block that did not go back yet."""
        self._check()
        return self.w.held or load_acquire(&_block(self.w).status) & TP_STATUS_USER != 0

    @property
    def failed(self):
        """Why the ring cannot be walked any further; None while it can."""
        return {WK_BROKEN: "a length in the ring is impossible", WK_MEMORY: "there is no memory"}.get(self.w.failed)

    @property
    def packets(self):
        """Packets taken from the ring so far."""
        return self.w.packets

    @property
    def bytes(self):
        """Captured bytes of them."""
        return self.w.bytes

    @property
    def blocks_given_back(self):
        """Blocks that went back to the kernel so far."""
        return self.w.given_back

    @property
    def clock_ns(self):
        """The input clock; 0 before the first packet."""
        return self.w.input.now_ns

    @property
    def clock_counts(self):
        """How many outliers, jumps and steps there were, by name."""
        cdef int i
        return {EVENT_KINDS[i]: self.w.log.counts[i] for i in range(<int>CE_COUNT)}

    @property
    def clock_events(self):
        """The first 256 of them as tuples (kind, packet number, before_ns, after_ns)."""
        cdef ClockEvent* e
        cdef uint32_t i
        events = []
        for i in range(self.w.log.kept):
            e = &self.w.log.events[i]
            events.append((EVENT_KINDS[e.kind], e.number, e.before_ns, e.after_ns))
        return events
