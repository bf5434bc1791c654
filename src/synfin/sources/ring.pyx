"""The packets of TPACKET_V3 rings, walked in place and merged by time: the compiled half of a live source.

Python (live.py) opens the sockets, maps the rings, waits and reads the kernel's counters; everything per packet is here.
Nothing is copied: a packet's bytes lie in the kernel's block until the batch that names them has been tracked, and only
then the block goes back.
"""

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport INT32_MAX, INT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from synfin._core.batch cimport PacketBatch
from synfin._core.types cimport BATCH_PACKETS, PF_STEP_BACK, Batch, PacketRef
from synfin.sources.clock cimport (
    CE_COUNT, HOUR_NS, ClockEvent, ClockLog, InputClock, clock_free, clock_judge, input_clock_take,
)
from synfin.sources.merge import EVENT_KINDS
from synfin.sources.packet_mmap cimport BLOCK_BYTES, FRAME_ALIGNMENT, FRAME_BYTES
from synfin.sources.walk cimport (
    WK_BROKEN, WK_EMPTY, WK_MEMORY, WK_PACKET, Walk, Walked, walk_begin, walk_is_ready, walk_next, walk_stretch,
)

cdef enum:
    MAX_RINGS = 64

cdef struct Rings:
    uint32_t count
    InputClock clock
    ClockLog log
    int64_t past_ns          # what was stamped before it has been handed over; INT64_MAX: nobody is waited for
    int64_t hold_ns          # how long a packet waits for another ring at most
    int64_t held_ns          # timestamp of the packet that waits, 0 for none
    Walk* rings[MAX_RINGS]


# The clock stepped back on one ring, and all rings are stamped by the same clock.
cdef void _step_back(Rings* m, int64_t time_ns) noexcept nogil:
    cdef Walk* w
    cdef uint32_t i
    for i in range(m.count):
        w = m.rings[i]
        if w.source.now_ns > time_ns + HOUR_NS:
            w.source.now_ns = time_ns
            if w.has_head:
                w.head.clock_ns = max(w.head.time_ns, time_ns)


# Counts the packet that stands in the batch's next place.
cdef inline void _give(Rings* m, Walk* w, Batch* b) noexcept nogil:
    cdef PacketRef* p = &b.packets[b.count]
    input_clock_take(&m.clock, &w.source, p)
    if p.flags & PF_STEP_BACK:
        _step_back(m, p.time_ns)
    b.count += 1


# The usual stretch of a block passes two loops, one of framing and one of clocks: those stamped before `limit_ns`
# that move no clock by more than half an hour, so that none is judged. As _give_usual of merge.pyx does for files.
cdef inline void _give_usual(Rings* m, Walk* w, Batch* b, int64_t limit_ns) noexcept nogil:
    cdef PacketRef* first = &b.packets[b.count]
    cdef int64_t clock_ns = max(m.clock.now_ns, w.source.now_ns)
    cdef uint32_t count, i
    if w.source.count or not w.source.started or not w.held or w.left < 2 or w.skip_outgoing or w.failed:
        return
    count = walk_stretch(w, clock_ns - HOUR_NS // 2, min(limit_ns, min(m.clock.now_ns, w.source.now_ns) + HOUR_NS // 2),
                         first, BATCH_PACKETS - b.count)
    if count == 0:
        return
    for i in range(count):
        clock_ns = max(clock_ns, first[i].time_ns)
        first[i].clock_ns = clock_ns
    w.source.now_ns = m.clock.now_ns = clock_ns
    m.clock.behind = 0
    b.count += count


# Makes the ring's next packet ready. False: the batch must go first, or the ring is broken. Of a ring that has none and
# keeps nobody waiting, the packets are judged that wait for a next one, and its clock goes on with the others'.
cdef inline bint _make_ready(Rings* m, Walk* w, const Batch* b) noexcept nogil:
    cdef Walked found = walk_next(w, b.count > 0, &w.head)
    if found == WK_EMPTY and m.count > 1:
        if w.source.count:
            if w.source.slots[w.source.first].packet.time_ns <= m.past_ns:
                clock_judge(&w.source, &w.head)
                found = WK_PACKET
        elif w.source.started and w.source.now_ns < m.past_ns < INT64_MAX:
            w.source.now_ns = m.past_ns
    w.has_head = found == WK_PACKET
    if not w.has_head:
        w.since_ns = 0
    return found == WK_PACKET or found == WK_EMPTY


# May a ring's packet go although another ring is empty, which could still bring an earlier one? Yes where it is too late
# to come; and where this ring has waited long enough without a packet that could go, whatever the clock does meanwhile.
cdef inline bint _is_released(const Rings* m, Walk* w) noexcept nogil:
    if w.head.time_ns <= m.past_ns:
        w.since_ns = 0
        return True
    if w.since_ns == 0:
        w.since_ns = m.past_ns
        return False
    return not w.since_ns <= m.past_ns < w.since_ns + m.hold_ns


# Fills the batch. Of each ring it borrows at most one block.
cdef void _merge(Rings* m, Batch* b) noexcept nogil:
    cdef Walk* w
    cdef Walk* first
    cdef int64_t limit_ns
    cdef bint silent
    cdef uint32_t i
    m.held_ns = 0
    while b.count < BATCH_PACKETS:
        first = NULL
        silent = False
        limit_ns = INT64_MAX     # of what may follow at once in the first ring: earlier than all others' first
        for i in range(m.count):
            w = m.rings[i]
            if not w.has_head and not _make_ready(m, w, b):
                return
            if not w.has_head:
                silent = True
            elif first == NULL or w.head.time_ns < first.head.time_ns:
                if first != NULL:
                    limit_ns = min(limit_ns, first.head.time_ns)
                first = w
            else:
                limit_ns = min(limit_ns, w.head.time_ns)
        if first == NULL:
            return
        if silent and m.count > 1:
            if not _is_released(m, first):
                m.held_ns = first.head.time_ns
                return
            limit_ns = min(limit_ns, m.past_ns)
        b.packets[b.count] = first.head
        first.has_head = False
        _give(m, first, b)
        _follow(m, first, b, limit_ns)


# Goes on with the packets of one ring that are earlier than limit_ns.
cdef void _follow(Rings* m, Walk* w, Batch* b, int64_t limit_ns) noexcept nogil:
    cdef PacketRef* p
    while b.count < BATCH_PACKETS:
        _give_usual(m, w, b, limit_ns)
        if b.count == BATCH_PACKETS:
            return
        p = &b.packets[b.count]
        if walk_next(w, True, p) != WK_PACKET:
            return
        if p.time_ns >= limit_ns:
            w.head = p[0]
            w.has_head = True
            return
        _give(m, w, b)


@cython.final
cdef class Ring:
    """A ring mapped from the kernel; `RingMerge` walks it.

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
        self.w.at = self.w.left = 0
        self.w.held = self.w.has_head = False

    def close(self):
        """Let go of the memory. Packets that were given out are void afterwards."""
        if self.w.base != NULL:
            self.w.base = NULL
            PyBuffer_Release(&self._memory)

    @property
    def ready(self):
        """Whether the kernel has handed over a block that did not go back yet."""
        return self.w.held or self.w.has_head or walk_is_ready(self.w)

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
    def card_stamps(self):
        """How many of them carry the card's timestamp; the others have the system's."""
        return self.w.card_stamps

    @property
    def blocks_given_back(self):
        """Blocks that went back to the kernel so far."""
        return self.w.given_back


@cython.final
cdef class RingMerge:
    """Rings of one or several interfaces as one stream, in the order of their packets' timestamps.

    Parameters
    ----------
    rings : at most 64; a packet's interface_id is its ring's place in them. Those of one tap (one direction each) are
        stamped by the same clock.
    hold_ns : how long a packet waits at most for an empty ring: the block timeout, after which the kernel hands over
        what that ring has.

    Notes
    -----
    A packet of one ring goes before a later one of another, as long as both are there in time: the kernel hands over a
    block when it is full or its timeout is over. So the driver says (`walk`) up to which timestamp everything has been
    handed over; what is earlier never waits, and what is later waits for the rings that are empty.
    """

    cdef Rings* m
    cdef tuple _rings        # which own what m points to

    def __cinit__(self, rings, int64_t hold_ns=0):
        cdef Ring ring
        self.m = <Rings*>calloc(1, sizeof(Rings))
        if self.m == NULL:
            raise MemoryError
        self._rings = tuple(rings)
        if not 0 < len(self._rings) <= MAX_RINGS:
            raise ValueError(f"between 1 and {MAX_RINGS} rings are merged")
        for which, ring in enumerate(self._rings):
            ring.w.interface_id = which
            ring.w.source.log = &self.m.log
            self.m.rings[which] = ring.w
        self.m.count = <uint32_t>len(self._rings)
        self.m.clock.log = &self.m.log
        self.m.hold_ns = hold_ns

    def __dealloc__(self):
        free(self.m)

    def close(self):
        """Let go of the memory of all rings. Packets that were given out are void afterwards."""
        for ring in self._rings:
            ring.close()

    def begin(self, PacketBatch batch not None):
        """Empty the batch, whose packets have been tracked, and give back the blocks that it borrowed from if that was
        their end.
        """
        cdef uint32_t i
        self._check()
        batch.c.count = 0
        for i in range(self.m.count):
            walk_begin(self.m.rings[i])

    def walk(self, PacketBatch batch not None, past_ns=None):
        """Add packets of blocks that the kernel has handed over. Returns whether the batch holds any.

        Parameters
        ----------
        past_ns : packets stamped before it have been handed over, if any came: time of the clock that stamps them, read
            before this call, less the block timeout. None: nothing waits for an empty ring (there is one, or all have
            ended).
        """
        self._check()
        self.m.past_ns = INT64_MAX if past_ns is None else past_ns
        with nogil:
            _merge(self.m, &batch.c)
        return batch.c.count > 0

    def settle(self, PacketBatch batch not None):
        """Add the packets that wait to be judged by a next one, as at a file's end. Into an empty batch only, and after
        `walk` found nothing; while a packet waits for another ring, nothing happens.
        """
        cdef Walk* w
        cdef uint32_t i
        if self.m.held_ns:
            return
        for i in range(self.m.count):
            w = self.m.rings[i]
            while w.source.count:
                clock_judge(&w.source, &batch.c.packets[batch.c.count])
                _give(self.m, w, &batch.c)

    def idle(self, int64_t clock_ns):
        """Let the clock reach `clock_ns` without a packet; nothing happens before the first packet."""
        cdef uint32_t i
        if self.m.clock.now_ns and clock_ns > self.m.clock.now_ns:
            self.m.clock.now_ns = clock_ns
            for i in range(self.m.count):
                if self.m.rings[i].source.started:
                    self.m.rings[i].source.now_ns = max(self.m.rings[i].source.now_ns, clock_ns)

    cdef int _check(self) except -1:
        cdef uint32_t i
        for i in range(self.m.count):
            if self.m.rings[i].base == NULL:
                raise ValueError("the ring is closed")
        return 0

    @property
    def held_ns(self):
        """Timestamp of the packet that the last `walk` kept for an empty ring; None where it kept none. It can go when
        `past_ns` has reached it, or when one of the `empty` rings has a block: only these are worth waiting for.
        """
        return self.m.held_ns or None

    @property
    def empty(self):
        """The places of the rings that had no packet at the last `walk`."""
        return [which for which in range(self.m.count) if not self.m.rings[which].has_head]

    @property
    def failed(self):
        """Why one of the rings cannot be walked any further; None while all can."""
        return next((ring.failed for ring in self._rings if ring.failed), None)

    @property
    def packets(self):
        """Packets taken from the rings so far."""
        return sum(ring.packets for ring in self._rings)

    @property
    def bytes(self):
        """Captured bytes of them."""
        return sum(ring.bytes for ring in self._rings)

    @property
    def blocks_given_back(self):
        """Blocks that went back to the kernel so far."""
        return sum(ring.blocks_given_back for ring in self._rings)

    @property
    def clock_ns(self):
        """The input clock; 0 before the first packet."""
        return self.m.clock.now_ns

    @property
    def clock_counts(self):
        """How many outliers, jumps and steps there were, by name."""
        cdef int i
        return {EVENT_KINDS[i]: self.m.log.counts[i] for i in range(<int>CE_COUNT)}

    @property
    def clock_events(self):
        """The first 256 of them as tuples (kind, interface_id, packet number on it, before_ns, after_ns)."""
        cdef ClockEvent* e
        cdef uint32_t i
        events = []
        for i in range(self.m.log.kept):
            e = &self.m.log.events[i]
            events.append((EVENT_KINDS[e.kind], e.interface_id, e.number, e.before_ns, e.after_ns))
        return events
