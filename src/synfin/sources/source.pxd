# One open capture: its framing and its clock, joined to "the next packet of this file, judged".
from libc.stdint cimport int64_t, uint8_t, uint32_t

from synfin._core.types cimport PacketRef
from synfin.sources.clock cimport (
    WAIT_PUSHES,
    SourceClock,
    clock_judge,
    clock_take,
    clock_wait,
    clock_wants,
)
from synfin.sources.frame cimport (
    FE_CUT,
    FE_EMPTY,
    FE_MAGIC,
    FE_MEMORY,
    FE_NONE,
    FM_PCAP,
    FM_PCAPNG,
    FM_UNKNOWN,
    FR_BROKEN,
    FR_END,
    FR_INTERFACE,
    FR_NEED,
    FR_PACKET,
    Framed,
    Framer,
    frame_fail,
    frame_view,
    load32,
)
from synfin.sources.pcap cimport pcap_magic, pcap_next, pcap_start
from synfin.sources.pcapng cimport BT_SECTION, pcapng_next

# What keeps the next packet from coming: a Framed value, or NX_BATCH.
cdef enum:
    NX_BATCH = 5             # the batch must go first: the file's waiting packets need their room again

cdef struct Source:
    Framer framer
    SourceClock clock
    PacketRef head           # the next packet, when has_head
    bint has_head
    uint8_t tap              # PacketRef.tap, from when it joins
    int64_t given            # packets read, those outside the window included
    int64_t first_ns         # the clock at the first and at the last of them
    int64_t last_ns
    int64_t inside_ns        # the clock as the packets inside the window alone would have moved it


# Finds the format by the first bytes.
cdef inline Framed _start(Framer* f) noexcept nogil:
    cdef const uint8_t* b = frame_view(f, 4)
    if b == NULL:
        return FR_NEED
    if load32(b, True) == BT_SECTION:
        f.format = FM_PCAPNG
        return FR_PACKET
    f.big_endian = pcap_magic(load32(b, True), &f.header_bytes, &f.tick_ns)
    if not f.big_endian and not pcap_magic(load32(b, False), &f.header_bytes, &f.tick_ns):
        return frame_fail(f, FE_MAGIC, 0, 0)
    return pcap_start(f)


# No more bytes come: was that the end, or is a record cut?
cdef inline Framed _finish(Framer* f) noexcept nogil:
    if f.carry_len == 0 and f.p == f.end and f.skip_block == 0:
        return FR_END if f.format != FM_UNKNOWN else frame_fail(f, FE_EMPTY, 0, 0)
    if f.format == FM_UNKNOWN and <size_t>(f.end - f.p) + f.carry_len < 4:
        return frame_fail(f, FE_MAGIC, 0, 0)
    return frame_fail(f, FE_CUT, 0, 0)


cdef inline Framed framer_next(Framer* f, PacketRef* out) noexcept nogil:
    cdef Framed result = FR_PACKET
    if f.error:
        return FR_BROKEN
    if f.format == FM_UNKNOWN:
        result = _start(f)
    if result == FR_PACKET:
        result = pcap_next(f, out) if f.format == FM_PCAP else pcapng_next(f, out)
    if result != FR_NEED:
        return result
    if f.error:
        return FR_BROKEN
    return _finish(f) if f.finished else FR_NEED


# Lets packets wait until the first of them can be judged.
cdef inline int _next_judged(Source* s, PacketRef* out) noexcept nogil:
    cdef Framed result
    while s.clock.count == 0 or s.clock.count < clock_wants(&s.clock):
        result = framer_next(&s.framer, out)
        if result == FR_NEED or result == FR_INTERFACE:
            return result
        if result != FR_PACKET:
            if s.clock.count == 0:
                return result
            break            # the file ends or breaks here: its last packets are taken as they are
        if not clock_wait(&s.clock, out):
            frame_fail(&s.framer, FE_MEMORY, 0, 0)
            return FR_BROKEN
    clock_judge(&s.clock, out)
    return FR_PACKET


# The file's next packet. OUT out: time_ns judged, clock_ns the file's clock. Returns FR_PACKET, or what is in the way.
cdef inline int source_next(Source* s, PacketRef* out) noexcept nogil:
    cdef Framed result
    if s.clock.pushes >= WAIT_PUSHES:
        return NX_BATCH
    if s.clock.count == 0 and s.clock.started:
        result = framer_next(&s.framer, out)
        if result != FR_PACKET or clock_take(&s.clock, out):
            return result
        if not clock_wait(&s.clock, out):
            frame_fail(&s.framer, FE_MEMORY, 0, 0)
            return FR_BROKEN
    return _next_judged(s, out)
