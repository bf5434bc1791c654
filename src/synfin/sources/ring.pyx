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
    AHEAD, WK_BROKEN, WK_EMPTY, WK_MEMORY, WK_PACKET, Walk, Walked, walk_begin, walk_has_ahead, walk_is_ready, walk_next,
    walk_stretch,
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
    cdef uint32_t i, j
    for i in range(m.count):
        w = m.rings[i]
        if w.source.now_ns > time_ns + HOUR_NS:
            w.source.now_ns = time_ns
            for j in range(w.ahead_at, w.ahead_count):
                w.source.now_ns = max(w.source.now_ns, w.ahead[j].time_ns)
                w.ahead[j].clock_ns = w.source.now_ns


# Counts the packet that stands in the batch's next place.
cdef inline void _give(Rings* m, Walk* w, Batch* b) noexcept nogil:
    cdef PacketRef* p = &b.packets[b.count]
    input_clock_take(&m.clock, &w.source, p)
    if p.flags & PF_STEP_BACK:
        _step_back(m, p.time_ns)
    b.count += 1


# The usual stretch of a block goes through in two loops, one of framing and one of clocks: frames that move no clock by
# more than half an hour, so that none is judged. As _give_usual of merge.pyx does for files. Each packet's clock_ns is at
# least clock_ns, which the ring's clock has then reached. Returns how many there are.
cdef inline uint32_t _frame_usual(Rings* m, Walk* w, PacketRef* first, uint32_t room, int64_t clock_ns) noexcept nogil:
    cdef int64_t lowest_ns = max(m.clock.now_ns, w.source.now_ns) - HOUR_NS // 2
    cdef int64_t highest_ns = min(m.clock.now_ns, w.source.now_ns) + HOUR_NS // 2
    cdef uint32_t count, i
    if w.source.count or not w.source.started or not w.held or w.left < 2 or w.failed:
        return 0
    count = walk_stretch(w, lowest_ns, highest_ns, first, room)
    for i in range(count):
        clock_ns = max(clock_ns, first[i].time_ns)
        first[i].clock_ns = clock_ns
    if count:
        w.source.now_ns = clock_ns
    return count


# Fills the batch from one ring.
cdef void _walk_alone(Rings* m, Walk* w, Batch* b) noexcept nogil:
    cdef uint32_t count
    while b.count < BATCH_PACKETS:
        count = _frame_usual(m, w, &b.packets[b.count], BATCH_PACKETS - b.count, max(m.clock.now_ns, w.source.now_ns))
        if count:
            b.count += count
            m.clock.now_ns = w.source.now_ns
            m.clock.behind = 0
        elif walk_next(w, b.count > 0, &b.packets[b.count]) == WK_PACKET:
            _give(m, w, b)
        else:
            return


# Makes the next packets of one of several rings ready. False: the batch must go first, or the ring is broken. Of a ring
# that has none and keeps nobody waiting, the packets are judged that wait for a next one, and its clock goes on with the
# others'.
cdef inline bint _make_ready(Rings* m, Walk* w, const Batch* b) noexcept nogil:
    cdef Walked found
    w.ahead_at = 0
    w.ahead_count = _frame_usual(m, w, &w.ahead[0], AHEAD, w.source.now_ns)
    if w.ahead_count:
        return True
    found = walk_next(w, b.count > 0, &w.ahead[0])
    if found == WK_EMPTY:
        if w.source.count:
            if w.source.slots[w.source.first].packet.time_ns <= m.past_ns:
                clock_judge(&w.source, &w.ahead[0])
                found = WK_PACKET
        elif w.source.started and w.source.now_ns < m.past_ns < INT64_MAX:
            w.source.now_ns = m.past_ns
    if found == WK_PACKET:
        w.ahead_count = 1
        return True
    w.since_ns = 0
    return found == WK_EMPTY


# May a ring's packet go although another ring is empty, which could still bring an earlier one? Yes where that is too
# late to come; and where this ring has waited long enough without a packet that could go, whatever the clock does.
cdef inline bint _is_released(const Rings* m, Walk* w, int64_t time_ns) noexcept nogil:
    if time_ns <= m.past_ns:
        w.since_ns = 0
        return True
    if w.since_ns == 0:
        w.since_ns = m.past_ns
        return False
    return not w.since_ns <= m.past_ns < w.since_ns + m.hold_ns


# Fills the batch from several rings. Of each it borrows at most one block.
cdef void _merge(Rings* m, Batch* b) noexcept nogil:
    cdef Walk* w
    cdef Walk* first
    cdef int64_t time_ns, first_ns, limit_ns
    cdef bint silent
    cdef uint32_t i
    while b.count < BATCH_PACKETS:
        first = NULL
        silent = False
        first_ns = limit_ns = INT64_MAX    # the earliest packet, and of the other rings'
        for i in range(m.count):
            w = m.rings[i]
            if not walk_has_ahead(w) and not _make_ready(m, w, b):
                return
            if not walk_has_ahead(w):
                silent = True
                continue
            time_ns = w.ahead[w.ahead_at].time_ns
            if time_ns < first_ns:
                limit_ns = first_ns
                first_ns = time_ns
                first = w
            else:
                limit_ns = min(limit_ns, time_ns)
        if first == NULL:
            return
        if silent:
            if not _is_released(m, first, first_ns):
                m.held_ns = first_ns
                return
            limit_ns = min(limit_ns, m.past_ns)
        while True:
            b.packets[b.count] = first.ahead[first.ahead_at]
            first.ahead_at += 1
            _give(m, first, b)
            if not (walk_has_ahead(first) and first.ahead[first.ahead_at].time_ns < limit_ns and b.count < BATCH_PACKETS):
                break


@cython.final
cdef class Ring:
    """A ring mapped from the kernel; `RingMerge` walks it.

    Parameters
    ----------
    memory : a writable buffer, the blocks one behind the other; held until `close`.
    block_bytes : length of a block, a multiple of 8.
    link_type : LINKTYPE_ value of what the ring delivers.
    """

    cdef Walk* w
    cdef Py_buffer _memory

    def __cinit__(self, memory not None, uint32_t block_bytes, uint16_t link_type):
        self.w = <Walk*>calloc(1, sizeof(Walk))
        if self.w == NULL:
            raise MemoryError
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
        self.w.held = False
        self.w.ahead_at = self.w.ahead_count = 0

    def close(self):
        """Let go of the memory. Packets that were given out are void afterwards."""
        if self.w.base != NULL:
            self.w.base = NULL
            PyBuffer_Release(&self._memory)

    @property
    def ready(self):
        """Whether the kernel has handed over a block that did not go back yet."""
        return self.w.held or walk_has_ahead(self.w) or walk_is_ready(self.w)

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
    hold_ns : how long a packet waits at most for a ring that is empty: the block timeout, after which the kernel hands
        over what that ring has.

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
        past_ns : packets stamped before it have been handed over, if any came: the time of the clock that stamps them,
            read before this call, less the block timeout. None: nothing waits for an empty ring (there is one, or all
            have ended).
        """
        self._check()
        self.m.past_ns = INT64_MAX if past_ns is None else past_ns
        self.m.held_ns = 0
        with nogil:
            if self.m.count == 1:
                _walk_alone(self.m, self.m.rings[0], &batch.c)
            else:
                _merge(self.m, &batch.c)
        return batch.c.count > 0

    def settle(self, PacketBatch batch not None):
        """Add the packets that wait to be judged by a next one, as at the end of a file. Into an empty batch only, and
        after `walk` found nothing; while a packet waits for another ring, nothing happens.
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
        """The timestamp of the packet that the last `walk` kept for an empty ring; None where it kept none. It can go
        when `past_ns` has reached it, or when one of the `empty` rings has a block: only these are worth waiting for.
        """
        return self.m.held_ns or None

    @property
    def empty(self):
        """The places of the rings that had no packet at the last `walk`."""
        return [which for which in range(self.m.count) if not walk_has_ahead(self.m.rings[which])]

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
