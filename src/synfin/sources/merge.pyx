"""Packets of open captures, merged by time: the compiled half of the input.

Python (captures.py) opens files, brings their chunks and decides which file joins when; everything per packet is here.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from synfin._core.batch cimport PacketBatch
from synfin._core.types cimport BATCH_PACKETS, PF_STEP_BACK, Batch, PacketRef
from synfin.sources.clock cimport (
    CE_COUNT, CLOCK_EVENTS, HOUR_NS, ClockEvent, ClockLog, InputClock, clock_free, input_clock_take,
)
from synfin.sources.frame cimport FE_STREAM, FM_PCAP, FR_PACKET, Framer, frame_fail, frame_free, frame_stash
from synfin.sources.pcap cimport LEN_CAPTURED_FIRST, pcap_stretch
from synfin.sources.source cimport Source, source_next

cdef enum:
    MAX_OPEN = 256
    MR_FULL = 10             # the batch is full
    MR_JOIN = 11             # merged time has reached the first packet of a file that waits
    MR_IDLE = 12             # no file is open

#: What `Merger.run` and `OpenCapture.peek` return, beside FULL, JOIN and IDLE of `run`.
NEED, PACKET, INTERFACE, END, BROKEN, BATCH = 0, 1, 2, 3, 4, 5
FULL, JOIN, IDLE = MR_FULL, MR_JOIN, MR_IDLE
MAX_OPEN_CAPTURES = MAX_OPEN
#: Kinds of clock events, in the order of their numbers.
EVENT_KINDS = ("outlier", "jump", "step")

cdef struct Merge:
    InputClock clock
    ClockLog log
    int64_t waiting_ns       # clock of the first packet of the next file that is not open yet; INT64_MAX for none
    int64_t waiting_order
    int64_t start_ns         # the window: packets from start_ns on and before end_ns
    int64_t end_ns
    int64_t outside          # packets outside it
    uint32_t count
    Source* heap[MAX_OPEN]   # by (clock of the head, file_id); only the root may be without a head


cdef inline bint _before(const Source* a, const Source* b) noexcept nogil:
    if a.head.clock_ns != b.head.clock_ns:
        return a.head.clock_ns < b.head.clock_ns
    return a.framer.file_id < b.framer.file_id


cdef inline bint _within(int64_t clock_ns, int64_t order, int64_t limit_ns, int64_t limit_order) noexcept nogil:
    return clock_ns < limit_ns or (clock_ns == limit_ns and order < limit_order)


cdef void _sift_down(Merge* m) noexcept nogil:
    cdef uint32_t at = 0, child
    cdef Source* moving = m.heap[0]
    while True:
        child = 2 * at + 1
        if child >= m.count:
            break
        if child + 1 < m.count and _before(m.heap[child + 1], m.heap[child]):
            child += 1
        if not _before(m.heap[child], moving):
            break
        m.heap[at] = m.heap[child]
        at = child
    m.heap[at] = moving


cdef void _sift_up(Merge* m, uint32_t at) noexcept nogil:
    cdef Source* moving = m.heap[at]
    while at and _before(moving, m.heap[(at - 1) // 2]):
        m.heap[at] = m.heap[(at - 1) // 2]
        at = (at - 1) // 2
    m.heap[at] = moving


cdef inline void _give(Merge* m, Source* s, Batch* b) noexcept nogil:
    # Counts the packet that stands in the batch's next place, and gives it out if it lies inside the window.
    cdef PacketRef* p = &b.packets[b.count]
    cdef int64_t reached
    if s.given == 0:
        s.first_ns = p.clock_ns
    s.last_ns = p.clock_ns
    s.given += 1
    p.tap = s.tap
    if not m.start_ns <= p.time_ns < m.end_ns:
        m.outside += 1
        return
    # A packet moves its source's clock to the smaller of the two, or not at all: so the clock that packets outside the
    # window have not moved is the highest of these.
    reached = min(p.time_ns, p.clock_ns)
    s.inside_ns = p.clock_ns = max(reached, s.inside_ns)
    input_clock_take(&m.clock, &s.clock, p)
    if p.flags & PF_STEP_BACK:
        s.inside_ns = p.time_ns
    b.count += 1


# The usual stretch of a file goes through in two loops, one of framing and one of clocks: pcap records that lie whole in
# the chunk and inside the window, before `limit_ns`, and that move no clock by more than half an hour, so that none is
# judged. What _give and source_next would do with such packets is done here in fewer steps.
cdef inline void _give_usual(Merge* m, Source* s, Batch* b, int64_t limit_ns) noexcept nogil:
    cdef Framer* f = &s.framer
    cdef PacketRef* first = &b.packets[b.count]
    cdef uint32_t room = BATCH_PACKETS - b.count, count, i
    cdef int64_t input_ns = max(m.clock.now_ns, s.inside_ns)
    cdef int64_t low_ns = max(m.start_ns, input_ns - HOUR_NS // 2)
    cdef int64_t high_ns = min(limit_ns, m.end_ns, min(s.clock.now_ns, input_ns) + HOUR_NS // 2)
    cdef int64_t highest_ns
    if (s.clock.count or not s.clock.started or f.error or f.format != FM_PCAP or f.carry_len
            or f.lengths != LEN_CAPTURED_FIRST or s.given == 0 or s.clock.now_ns >= limit_ns):
        return
    if f.big_endian:
        count = pcap_stretch(f, True, low_ns, high_ns, first, room)
    else:
        count = pcap_stretch(f, False, low_ns, high_ns, first, room)
    if count == 0:
        return
    highest_ns = first.time_ns
    for i in range(count):
        highest_ns = max(highest_ns, first[i].time_ns)
        first[i].clock_ns = max(input_ns, highest_ns)
        first[i].tap = s.tap
    s.given += count
    s.clock.now_ns = s.last_ns = max(s.clock.now_ns, highest_ns)
    s.inside_ns = max(s.inside_ns, highest_ns)
    m.clock.now_ns = max(input_ns, highest_ns)
    m.clock.behind = 0
    b.count += count


# The lowest number that no open capture has: a file that begins when another has ended goes on as the same tap.
cdef uint8_t _free_tap(const Merge* m) noexcept nogil:
    cdef uint8_t tap = 0         # fewer than MAX_OPEN are taken
    cdef uint32_t i = 0
    while i < m.count:
        if m.heap[i].tap == tap:
            tap += 1
            i = 0
        else:
            i += 1
    return tap


# Fills the batch. Returns MR_FULL, or what is needed before it can go on: MR_JOIN, MR_IDLE, or a result of source_next
# for the file at the root of the heap.
cdef int _merge_run(Merge* m, Batch* b) noexcept nogil:
    cdef Source* s
    cdef int64_t limit_ns, limit_order
    cdef uint32_t i
    cdef int result
    while b.count < BATCH_PACKETS:
        if m.count == 0:
            return MR_IDLE
        s = m.heap[0]
        if not s.has_head:
            result = source_next(s, &s.head)
            if result != FR_PACKET:
                return result
            s.has_head = True
            _sift_down(m)
            s = m.heap[0]
        if not _within(s.head.clock_ns, s.framer.file_id, m.waiting_ns, m.waiting_order):
            return MR_JOIN
        b.packets[b.count] = s.head
        s.has_head = False
        _give(m, s, b)
        # This file goes on while no other file's packet comes first.
        limit_ns, limit_order = m.waiting_ns, m.waiting_order
        for i in range(1, min(m.count, <uint32_t>3)):
            if _within(m.heap[i].head.clock_ns, m.heap[i].framer.file_id, limit_ns, limit_order):
                limit_ns, limit_order = m.heap[i].head.clock_ns, m.heap[i].framer.file_id
        while b.count < BATCH_PACKETS:
            _give_usual(m, s, b, limit_ns)
            if b.count == BATCH_PACKETS:
                break
            result = source_next(s, &b.packets[b.count])
            if result != FR_PACKET:
                return result
            if not _within(b.packets[b.count].clock_ns, s.framer.file_id, limit_ns, limit_order):
                s.head = b.packets[b.count]
                s.has_head = True
                _sift_down(m)
                break
            _give(m, s, b)
    return MR_FULL


@cython.final
cdef class OpenCapture:
    """One open capture, fed with chunks of its (decompressed) bytes.

    Parameters
    ----------
    file_id : its place in path order, which also settles ties.
    """

    cdef Source* c
    cdef ClockLog own_log    # until the file joins a merge, so that a look ahead is not reported
    cdef Py_buffer _chunk
    cdef bint _has_chunk

    def __cinit__(self, int file_id):
        self.c = <Source*>calloc(1, sizeof(Source))
        if self.c == NULL:
            raise MemoryError
        self.c.framer.file_id = file_id
        self.c.clock.log = &self.own_log

    def __dealloc__(self):
        if self.c != NULL:
            if self._has_chunk:
                PyBuffer_Release(&self._chunk)
            frame_free(&self.c.framer)
            clock_free(&self.c.clock)
            free(self.c)

    def release(self):
        """Let go of the chunk at hand. Packets given out before are void afterwards."""
        frame_stash(&self.c.framer)
        if self._has_chunk:
            PyBuffer_Release(&self._chunk)
            self._has_chunk = False

    def feed(self, chunk not None):
        """Take the next chunk, which must stay unchanged until `release`."""
        self.release()
        PyObject_GetBuffer(chunk, &self._chunk, PyBUF_SIMPLE)
        self._has_chunk = True
        self.c.framer.p = <const uint8_t*>self._chunk.buf
        self.c.framer.end = self.c.framer.p + self._chunk.len

    def finish(self, bint failed=False):
        """Say that no chunk follows, or (`failed`) that the reader below broke there."""
        self.release()
        self.c.framer.finished = True
        if failed and not self.c.framer.error:
            frame_fail(&self.c.framer, FE_STREAM, 0, 0)

    def peek(self):
        """Make the first packet ready; PACKET, or what is needed before."""
        cdef int result = FR_PACKET
        if not self.c.has_head:
            with nogil:
                result = source_next(self.c, &self.c.head)
            self.c.has_head = result == FR_PACKET
        return result

    def skim(self):
        """The source's clock after all packets of the chunk at hand, which are then behind us."""
        cdef PacketRef packet
        cdef int64_t clock_ns = self.c.head.clock_ns
        with nogil:
            while source_next(self.c, &packet) == FR_PACKET:
                clock_ns = packet.clock_ns
        return clock_ns

    def name_interface(self, int run_id):
        """Give the newest interface its number in the run."""
        self.c.framer.interfaces[self.c.framer.interface_count - 1].run_id = run_id

    @property
    def interface_name(self):
        """if_name of the newest interface as bytes (None where it has none) and its number in its section."""
        name = self.c.framer.name[:self.c.framer.name_len] if self.c.framer.name != NULL else None
        return name, self.c.framer.interface_count - 1

    @property
    def head_clock_ns(self):
        """The clock at the packet that `peek` has made ready."""
        return self.c.head.clock_ns if self.c.has_head else None

    @property
    def offset(self):
        """Bytes from the start of the capture to the record at hand."""
        return self.c.framer.offset

    @property
    def error(self):
        """(code, a, b) of what broke the capture; the code is 0 while nothing has."""
        return self.c.framer.error, self.c.framer.error_a, self.c.framer.error_b

    @property
    def file_id(self):
        return self.c.framer.file_id

    @property
    def packets(self):
        """Packets read, those outside the window included."""
        return self.c.given

    @property
    def clamped(self):
        """Timestamps so far that lay before 1970 or after 2116."""
        return self.c.framer.clamped

    @property
    def drops(self):
        """Packets that the capture's own statistics say were lost, so far; None where they do not say."""
        return self.c.framer.drops if self.c.framer.knows_drops else None

    @property
    def span_ns(self):
        """(first, last) clock of those packets; None before the first."""
        return (self.c.first_ns, self.c.last_ns) if self.c.given else None


@cython.final
cdef class Merger:
    """Open captures, merged by their clocks, ties by file_id.

    Parameters
    ----------
    start_ns, end_ns : packets before start_ns, and from end_ns on, are counted and not given out. None: no end.
    """

    cdef Merge* m
    cdef dict _open          # file_id -> OpenCapture, which owns what the heap points to

    def __cinit__(self, int64_t start_ns=0, end_ns=None):
        self.m = <Merge*>calloc(1, sizeof(Merge))
        if self.m == NULL:
            raise MemoryError
        self.m.waiting_ns = INT64_MAX
        self.m.start_ns = start_ns
        self.m.end_ns = INT64_MAX if end_ns is None else end_ns
        self.m.clock.log = &self.m.log
        self._open = {}

    def __dealloc__(self):
        free(self.m)

    def __len__(self):
        return self.m.count

    def begin(self, PacketBatch batch not None):
        """Empty the batch; what it held is void from now on."""
        cdef uint32_t i
        batch.c.count = 0
        for i in range(self.m.count):
            self.m.heap[i].clock.pushes = 0

    def run(self, PacketBatch batch not None):
        """Add packets to the batch; FULL, or what is needed before it can go on (for the capture `first`)."""
        cdef int result
        with nogil:
            result = _merge_run(self.m, &batch.c)
        return result

    @property
    def first(self):
        """The capture whose packet comes next."""
        return self._open[self.m.heap[0].framer.file_id]

    def join(self, OpenCapture capture not None):
        """Add a capture whose first packet `peek` has made ready. At most 256 can be open."""
        cdef Source* s = capture.c
        if self.m.count == MAX_OPEN or not s.has_head:
            raise ValueError("too many open captures, or no packet is ready")
        s.clock.log = &self.m.log
        s.tap = _free_tap(self.m)
        self._keep_events(&capture.own_log)
        self.m.heap[self.m.count] = s
        self.m.count += 1
        self._open[s.framer.file_id] = capture
        _sift_up(self.m, self.m.count - 1)

    cdef void _keep_events(self, ClockLog* early):
        # The judgement of the first packet came before the capture joined.
        cdef ClockLog* log = &self.m.log
        cdef uint32_t taken = min(early.kept, <uint32_t>CLOCK_EVENTS - log.kept)
        cdef int i
        for i in range(<int>CE_COUNT):
            log.counts[i] += early.counts[i]
        memcpy(&log.events[log.kept], &early.events[0], taken * sizeof(early.events[0]))
        log.kept += taken

    def leave(self):
        """Take out the capture whose packet would come next."""
        del self._open[self.m.heap[0].framer.file_id]
        self.m.count -= 1
        self.m.heap[0] = self.m.heap[self.m.count]
        if self.m.count:
            _sift_down(self.m)

    def wait_for(self, first_ns, int64_t file_id):
        """Stop with JOIN when merged time reaches `first_ns` (None: never)."""
        self.m.waiting_ns = INT64_MAX if first_ns is None else first_ns
        self.m.waiting_order = file_id

    @property
    def outside(self):
        """Packets that lay outside the window."""
        return self.m.outside

    @property
    def clock_counts(self):
        """How many outliers, jumps and steps there were, by name."""
        return {name: self.m.log.counts[i] for i, name in enumerate(EVENT_KINDS)}

    @property
    def clock_events(self):
        """The first 256 of them as tuples (kind, file_id, packet number, before_ns, after_ns)."""
        cdef ClockEvent* e
        cdef uint32_t i
        events = []
        for i in range(self.m.log.kept):
            e = &self.m.log.events[i]
            events.append((EVENT_KINDS[e.kind], e.file_id, e.number, e.before_ns, e.after_ns))
        return events
