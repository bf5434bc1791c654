# The clocks of the input. Each source (an open file, a live ring) has a clock: the highest timestamp that it has
# delivered, guarded against lone outliers. The input clock is the highest of them in merged order. Everything here is
# per packet and without Python; docs/design/0001-open-cases.md, "Time", names the cases.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from synfin._core.types cimport PF_STEP_BACK, PacketRef

cdef extern from *:
    """
    #define SYNFIN_HOUR_NS INT64_C(3600000000000)
    #define SYNFIN_TIME_MAX_NS INT64_C(0x3fffffffffffffff)
    """
    const int64_t HOUR_NS "SYNFIN_HOUR_NS"
    # Timestamps lie between 1970 and 2116, so that sums and differences of two never overflow.
    const int64_t TIME_MAX_NS "SYNFIN_TIME_MAX_NS"

cdef enum:
    STEP_BACK_PACKETS = 1000
    WAIT_SLOTS = 16
    WAIT_PUSHES = 4          # a source with so many copies in one batch ends the batch before it makes another
    CLOCK_EVENTS = 256       # described in full; later ones are only counted
    PF_UNTIMED = 0x80        # from the framing to the clock: the capture holds no timestamp for this packet

cdef enum ClockEventKind:
    CE_OUTLIER = 0           # a lone timestamp, replaced by after_ns
    CE_JUMP = 1              # the source's clock moved ahead by more than an hour
    CE_STEP = 2              # the input clock stepped back
    CE_COUNT = 3

cdef struct ClockEvent:
    int64_t number           # of the packet in its file
    int64_t before_ns        # the timestamp as captured (outlier), or the clock before
    int64_t after_ns
    int32_t file_id
    int32_t interface_id
    uint8_t kind

cdef struct ClockLog:
    int64_t counts[CE_COUNT]
    uint32_t kept
    ClockEvent events[CLOCK_EVENTS]

# A packet that waits for its source's next packets, with a copy of its bytes.
cdef struct Waiting:
    PacketRef packet
    uint8_t* room
    size_t capacity

cdef struct SourceClock:
    int64_t now_ns           # 0 before the first timestamp
    bint started
    uint32_t first           # slot of the longest-waiting packet
    uint32_t count           # packets that wait: at most 3
    uint32_t pushes          # copies made since the batch began
    ClockLog* log            # never NULL
    Waiting slots[WAIT_SLOTS]

cdef struct InputClock:
    int64_t now_ns           # 0 before the first packet
    uint32_t behind          # packets in a row that were more than an hour behind it
    ClockLog* log            # never NULL


cdef inline void clock_note(ClockLog* log, uint8_t kind, const PacketRef* p, int64_t before_ns,
                            int64_t after_ns) noexcept nogil:
    cdef ClockEvent* event
    log.counts[kind] += 1
    if log.kept == CLOCK_EVENTS:
        return
    event = &log.events[log.kept]
    log.kept += 1
    event.number = p.number
    event.before_ns = before_ns
    event.after_ns = after_ns
    event.file_id = p.file_id
    event.interface_id = p.interface_id
    event.kind = kind


# The usual case: a running clock, and a packet that is not more than an hour ahead of it. True when that is so; then
# the clock and p.clock_ns are set. Otherwise the packet must wait (clock_wait) and be judged (clock_judge).
cdef inline bint clock_take(SourceClock* c, PacketRef* p) noexcept nogil:
    if not c.started or p.flags or p.time_ns > c.now_ns + HOUR_NS:
        return False
    if p.time_ns > c.now_ns:
        c.now_ns = p.time_ns
    p.clock_ns = c.now_ns
    return True


# Copies a packet to the end of the queue. False when memory is short. At most 3 wait at a time, and the copies of one
# batch are bounded by WAIT_PUSHES, so that no slot is used again while a batch borrows it.
cdef inline bint clock_wait(SourceClock* c, const PacketRef* p) noexcept nogil:
    cdef Waiting* slot = &c.slots[(c.first + c.count) % WAIT_SLOTS]
    cdef void* room
    if slot.capacity < p.captured_len:
        room = realloc(slot.room, p.captured_len)
        if room == NULL:
            return False
        slot.room = <uint8_t*>room
        slot.capacity = p.captured_len
    if p.captured_len:
        memcpy(slot.room, p.data, p.captured_len)
    slot.packet = p[0]
    slot.packet.data = slot.room
    c.count += 1
    c.pushes += 1
    return True


# How many packets must wait before the first of them can be judged (fewer do when the source has ended). At least one
# waits.
cdef inline uint32_t clock_wants(const SourceClock* c) noexcept nogil:
    cdef const PacketRef* p = &c.slots[c.first].packet
    if p.flags & PF_UNTIMED:
        return 1
    if not c.started:
        return 3
    return 2 if p.time_ns > c.now_ns + HOUR_NS else 1


cdef inline bint _behind_first(const SourceClock* c, uint32_t which) noexcept nogil:
    # Does a first packet lie more than an hour ahead of this one?
    cdef const PacketRef* p = &c.slots[(c.first + which) % WAIT_SLOTS].packet
    return not (p.flags & PF_UNTIMED) and c.slots[c.first].packet.time_ns > p.time_ns + HOUR_NS


# Judges the longest-waiting packet, moves the clock and hands the packet out. IN c: at least clock_wants packets wait,
# or the source has ended. OUT p: clock_ns is the source's clock after the packet.
cdef inline void clock_judge(SourceClock* c, PacketRef* p) noexcept nogil:
    cdef const PacketRef* second = &c.slots[(c.first + 1) % WAIT_SLOTS].packet
    cdef int64_t stamp
    p[0] = c.slots[c.first].packet
    stamp = p.time_ns
    if p.flags & PF_UNTIMED:
        p.time_ns = p.stamp_ns = c.now_ns
        p.flags &= <uint8_t>~PF_UNTIMED
    elif not c.started:
        if c.count >= 3 and _behind_first(c, 1) and _behind_first(c, 2):
            p.time_ns = second.time_ns
            clock_note(c.log, CE_OUTLIER, p, stamp, p.time_ns)
        c.now_ns = p.time_ns
        c.started = True
    elif stamp > c.now_ns + HOUR_NS:
        if c.count >= 2 and (second.flags & PF_UNTIMED or second.time_ns <= c.now_ns + HOUR_NS):
            p.time_ns = c.now_ns
            clock_note(c.log, CE_OUTLIER, p, stamp, p.time_ns)
        else:
            if c.count >= 2 and second.time_ns < stamp:
                stamp = second.time_ns
            clock_note(c.log, CE_JUMP, p, c.now_ns, stamp)
            c.now_ns = stamp
    elif stamp > c.now_ns:
        c.now_ns = stamp
    p.clock_ns = c.now_ns
    c.first = (c.first + 1) % WAIT_SLOTS
    c.count -= 1


# Moves the input clock by the next packet in merged order. IN OUT p: clock_ns becomes the input clock, PF_STEP_BACK is
# set where the clock steps back after this packet; c and the clock of the source that delivered it then stand at the
# packet's timestamp.
cdef inline void input_clock_take(InputClock* c, SourceClock* source, PacketRef* p) noexcept nogil:
    if p.clock_ns > c.now_ns:
        c.now_ns = p.clock_ns
    p.clock_ns = c.now_ns
    if p.time_ns >= c.now_ns - HOUR_NS:
        c.behind = 0
        return
    c.behind += 1
    if c.behind < STEP_BACK_PACKETS:
        return
    p.flags |= PF_STEP_BACK
    clock_note(c.log, CE_STEP, p, c.now_ns, p.time_ns)
    c.behind = 0
    c.now_ns = p.time_ns
    source.now_ns = p.time_ns


cdef inline void clock_free(SourceClock* c) noexcept nogil:
    cdef uint32_t i
    for i in range(<uint32_t>WAIT_SLOTS):
        free(c.slots[i].room)
    memset(&c.slots, 0, sizeof(c.slots))
