"""Which worker a packet belongs to: the input is framed once, in rounds, and each worker gets its share of every round.

Both directions of a connection, whatever tells connections apart beside it, copies of a packet and ICMP errors that quote
it have their addresses and ports in common: these alone decide.
"""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from synfin._core.account cimport skips_of
from synfin._core.bytes cimport be16, be32
from synfin._core.batch cimport PacketBatch
from synfin._core.core cimport NEVER, Stats
from synfin._core.decode cimport decode
from synfin._core.key cimport MIX_A, MIX_B, mix64
from synfin._core.link cimport ET_IPV4, LINKTYPE_ETHERNET
from synfin._core.types cimport *


cdef enum:
    SHARE_BYTES = SHARE_BATCHES * BATCH_PACKETS * 128    # headers of the usual size; a larger packet gets more
    ET_VLAN = 0x8100
    ET_IPV6 = 0x86DD
    PROTOCOL_TCP = 6
    NOBODY = -1              # a skip that has been counted

# A packet's place: the worker, and how many of its bytes the tracker looks at.
cdef struct Place:
    int worker
    uint32_t size

# ------------------------------------------------------------------------------------------------ place

cdef inline uint64_t _words(const uint8_t* address) noexcept nogil:
    cdef uint64_t word[2]
    memcpy(word, address, 16)
    return mix64(word[0] ^ MIX_A, word[1] ^ MIX_B)

# The same for both directions. The seed is fixed, so that each worker's rows come in the same order in every run; who
# aims at it makes one worker do all, which costs no more than having one.
cdef inline int _worker(uint64_t one, uint64_t other, int workers) noexcept nogil:
    cdef uint64_t low = one if one < other else other
    cdef uint64_t high = other if one < other else one
    return <int>(((mix64(low ^ MIX_A, high ^ MIX_B) >> 32) * <uint64_t>workers) >> 32)

cdef inline int _worker4(const uint8_t* src, const uint8_t* dst, uint32_t ports, int workers) noexcept nogil:
    return _worker(<uint64_t>be32(src) << 16 | ports >> 16, <uint64_t>be32(dst) << 16 | (ports & 0xFFFF), workers)

cdef inline int _worker6(const uint8_t* src, const uint8_t* dst, uint32_t ports, int workers) noexcept nogil:
    return _worker(_words(src) + (ports >> 16), _words(dst) + (ports & 0xFFFF), workers)

# The place of TCP on IPv4 or IPv6 on Ethernet, with or without VLAN tags: most packets, of which only the headers count.
# False: the decoder must say.
cdef inline bint _peek(const PacketRef* p, int workers, Place* place) noexcept nogil:
    cdef uint32_t at = 14, ip, kind
    if p.link_type != LINKTYPE_ETHERNET or p.flags & PF_VLAN or p.captured_len < 54:
        return False
    kind = be16(p.data + 12)
    while kind == ET_VLAN and at + 4 + 40 <= p.captured_len:
        kind = be16(p.data + at + 2)
        at += 4
    ip = at
    if kind == ET_IPV4:
        # Version 4 and protocol TCP; the first fragment or the only one.
        if p.data[ip] >> 4 != 4 or p.data[ip + 9] != PROTOCOL_TCP or be16(p.data + ip + 6) & 0x1FFF:
            return False
        at += <uint32_t>(p.data[ip] & 15) * 4
        if at < ip + 20 or at + 20 > p.captured_len:
            return False
        place.worker = _worker4(p.data + ip + 12, p.data + ip + 16, be32(p.data + at), workers)
    elif kind == ET_IPV6:
        at += 40
        if at + 20 > p.captured_len or p.data[ip] >> 4 != 6 or p.data[ip + 6] != PROTOCOL_TCP:
            return False
        place.worker = _worker6(p.data + ip + 8, p.data + ip + 24, be32(p.data + at), workers)
    else:
        return False
    place.size = min(at + max(<uint32_t>(p.data[at + 12] >> 4) * 4, <uint32_t>20), p.captured_len)
    return True

# ------------------------------------------------------------------------------------------------ round

# Room for one more packet, whose bytes are copied; NULL when the share is full, or (`failed`) without memory.
cdef inline PacketRef* _add(Share* share, const PacketRef* p, uint32_t size, bint* failed) noexcept nogil:
    cdef Batch* batch = &share.batches[share.count - 1]
    cdef PacketRef* copy
    if batch.count == BATCH_PACKETS:
        if share.count == SHARE_BATCHES:
            return NULL
        share.count += 1
        batch += 1
        batch.count = 0
    if share.used + size > share.size:
        if share.used:
            return NULL
        free(share.bytes)
        share.size = max(<uint64_t>size, <uint64_t>SHARE_BYTES)
        share.bytes = <uint8_t*>malloc(share.size)
        if share.bytes == NULL:
            share.size = 0
            failed[0] = True
            return NULL
    copy = &batch.packets[batch.count]
    copy[0] = p[0]
    copy.data = share.bytes + share.used
    copy.captured_len = size
    if size:
        memcpy(share.bytes + share.used, p.data, size)
    share.used += size
    batch.count += 1
    return copy


@cython.final
cdef class Round:
    """A stretch of the input, in the shares of all workers: the way from the thread that frames to those that track."""

    def __cinit__(self, int workers):
        cdef int i
        self.shares = <Share*>calloc(<uint32_t>workers, sizeof(Share))
        if self.shares == NULL:
            raise MemoryError("no memory for a round of packets")
        self.workers = workers
        for i in range(workers):
            self.shares[i].batches = <Batch*>malloc(SHARE_BATCHES * sizeof(Batch))
            if self.shares[i].batches == NULL:
                raise MemoryError("no memory for a round of packets")
        self.clear()

    def __dealloc__(self):
        cdef int i
        if self.shares != NULL:
            for i in range(self.workers):
                free(self.shares[i].batches)
                free(self.shares[i].bytes)
            free(self.shares)

    def clear(self):
        """Forget all packets, so that the round can be filled anew."""
        cdef int i
        for i in range(self.workers):
            self.shares[i].count = 1
            self.shares[i].at = 0
            self.shares[i].batches[0].count = 0
            self.shares[i].used = 0
        self.first_clock = self.clock = NEVER
        self.steps = self.knows_drops = False
        self.drops = 0

    def add_drops(self, int64_t count):
        """Count packets that the capture lost before the end of this round."""
        self.knows_drops = True
        self.drops += count


@cython.final
cdef class Router:
    """Gives the packets of batches to workers, and counts those itself that no tracker needs to see.

    Parameters
    ----------
    workers : how many.
    whole : trackers look beyond the headers (`Tracker.headers_suffice`); else only these are handed on.
    filtered : a filter comes before every other reason to skip a packet, and trackers apply it.
    """

    cdef Stats* stats_of_skips
    cdef int workers
    cdef bint whole
    cdef bint filtered

    def __cinit__(self, int workers, bint whole, bint filtered):
        self.stats_of_skips = <Stats*>calloc(1, sizeof(Stats))
        if self.stats_of_skips == NULL:
            raise MemoryError("no memory for a router")
        self.workers = workers
        self.whole = whole
        self.filtered = filtered

    def __dealloc__(self):
        free(self.stats_of_skips)

    def route(self, PacketBatch batch not None, uint32_t start, Round round not None):
        """Add the packets from `start` on to the round.

        Returns
        -------
        (int, bool) : the first packet that had no room; whether the round is over, because it is full or the clock steps.
        """
        cdef bint failed = False
        cdef uint32_t at
        with nogil:
            at = self._route(&batch.c, start, round, &failed)
        if failed:
            raise MemoryError("no memory for a round of packets")
        return at, round.steps or at < batch.c.count

    cdef uint32_t _route(self, const Batch* batch, uint32_t start, Round round, bint* failed) noexcept nogil:
        cdef const PacketRef* p
        cdef PacketRef* copy
        cdef Place place
        cdef uint32_t i
        for i in range(start, batch.count):
            p = &batch.packets[i]
            if not _peek(p, self.workers, &place):
                self._decode(p, &place)
            if place.worker != NOBODY:     # else it has been counted
                copy = _add(&round.shares[place.worker], p, p.captured_len if self.whole else place.size, failed)
                if copy == NULL:
                    return i
                copy.flags &= <uint8_t>~PF_STEP_BACK     # the round's end says it, to all workers
            if round.first_clock == NEVER:
                round.first_clock = p.clock_ns
            round.clock = p.clock_ns
            if p.flags & PF_STEP_BACK:
                round.steps = True
                round.step_ns = p.time_ns
                return i + 1
        return batch.count

    # The place of any packet. A skip that no filter comes before is counted here and goes nowhere.
    cdef void _decode(self, const PacketRef* p, Place* place) noexcept nogil:
        cdef Stats* stats = self.stats_of_skips
        cdef Segment segment
        cdef Tunnel tunnel
        cdef uint32_t ports
        cdef int verdict
        segment.quoted = 0
        verdict = decode(p, &segment, &tunnel, False)
        place.size = p.captured_len
        if verdict == VD_SEGMENT or (verdict == VD_ICMP_ERROR and segment.quoted):
            ports = <uint32_t>segment.src_port << 16 | segment.dst_port
            if segment.ip_version == 4:
                place.worker = _worker4(segment.src, segment.dst, ports, self.workers)
            else:
                place.worker = _worker6(segment.src, segment.dst, ports, self.workers)
            return
        if self.filtered:
            place.worker = 0
            return
        place.worker = NOBODY
        if stats.packets == 0 or p.time_ns < stats.first_time:
            stats.first_time = p.time_ns
        if stats.packets == 0 or p.time_ns > stats.last_time:
            stats.last_time = p.time_ns
        stats.packets += 1
        if verdict == VD_LINK_TYPE:
            stats.link_types[p.link_type] += 1
        else:
            stats.skips[verdict] += 1

    def stats(self):
        """The account of the packets that went to no worker, in the words of `Tracker.stats`."""
        cdef Stats* stats = self.stats_of_skips
        return {
            "packets": stats.packets,
            "skips": skips_of(stats),
            "first_time_ns": stats.first_time if stats.packets else None,
            "last_time_ns": stats.last_time if stats.packets else None,
        }
