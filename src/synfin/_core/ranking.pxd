# The first keys of an interval by rank, of those that come one after another (SPEC 5): a heap of which the worst is on
# top. What it drives out, and what never gets in, is added up as all others. So no more keys are held than have rows of
# their own, however many come.
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, qsort, realloc
from libc.string cimport memcmp, memcpy, memset

from synfin._core.intervals cimport (
    COUNTS, G_CONNECTIONS, GAUGES, PEAKS, RTT_BUCKETS, SLICES, RttHistogram, rtt_bucket_middle,
)
from synfin._core.parts cimport ID_BYTES, ID_OTHERS, ID_VERSION, Bucket, Part

cdef enum:
    SIDE_BIT = 0x80000000    # of a bucket's place: client

# One key, with what several workers have of it added up.
cdef struct Ranked:
    Part part
    Bucket* buckets          # places with SIDE_BIT; one may stand there several times
    uint32_t count
    uint32_t room

cdef struct Ranking:
    Ranked hand              # the key that is being added up
    Ranked* ranked           # those of the first rank that came so far
    uint32_t* order          # their numbers: a heap, the worst first; when all have come, the best first
    uint32_t count
    uint32_t room
    uint32_t top             # that have rows of their own
    bint has_others
    Part others
    RttHistogram others_rtt[2]
    bint no_memory           # the rest is void

# ------------------------------------------------------------------------------------------------ adding up

# All but the buckets themselves.
cdef inline void add_figures(Part* total, const Part* part) noexcept nogil:
    cdef int i, j
    total.complete &= part.complete
    total.knows_drops |= part.knows_drops
    for i in range(GAUGES):
        total.gauges[i] += part.gauges[i]
    for i in range(PEAKS):
        for j in range(SLICES):
            total.course[i][j] += part.course[i][j]
    for i in range(COUNTS):
        total.counts[i] += part.counts[i]
    for i in range(2):
        total.buckets[i] += part.buckets[i]
        total.rtt_max[i] = max(total.rtt_max[i], part.rtt_max[i])

cdef inline void add_bucket(RttHistogram* h, const Bucket* bucket, int64_t most) noexcept nogil:
    h.max = most if h.samples == 0 or most > h.max else h.max
    h.buckets[bucket.place & ~<uint32_t>SIDE_BIT] += bucket.samples
    h.samples += bucket.samples

cdef inline bint _has_room(Ranking* r, uint32_t count) noexcept nogil:
    cdef uint32_t room = max(2 * r.hand.room, r.hand.count + count)
    cdef Bucket* buckets
    if r.hand.count + count <= r.hand.room:
        return True
    buckets = <Bucket*>realloc(r.hand.buckets, room * sizeof(Bucket))
    if buckets == NULL:
        r.no_memory = True
        return False
    r.hand.buckets = buckets
    r.hand.room = room
    return True

# Begins the next key of an interval; its id is that of the part.
cdef inline void begin_key(Ranking* r, const Part* part) noexcept nogil:
    memset(&r.hand.part, 0, sizeof(Part))
    r.hand.count = 0
    r.hand.part.number = part.number
    r.hand.part.complete = True
    memcpy(r.hand.part.id, part.id, ID_BYTES)

cdef inline void add_part(Ranking* r, const Part* part) noexcept nogil:
    cdef const Bucket* bucket = <const Bucket*>(part + 1)
    cdef uint32_t count = part.buckets[0] + part.buckets[1], i
    add_figures(&r.hand.part, part)
    for i in range(count if _has_room(r, count) else 0):
        r.hand.buckets[r.hand.count] = bucket[i]
        if i >= part.buckets[0]:
            r.hand.buckets[r.hand.count].place |= SIDE_BIT
        r.hand.count += 1

# The key in hand has no row of its own.
cdef inline void _add_other(Ranking* r) noexcept nogil:
    cdef uint32_t i
    cdef int side
    if not r.has_others:
        r.has_others = True
        memset(&r.others, 0, sizeof(Part))
        r.others.number = r.hand.part.number
        r.others.complete = True
    add_figures(&r.others, &r.hand.part)
    for i in range(r.hand.count):
        side = r.hand.buckets[i].place >> 31
        add_bucket(&r.others_rtt[side], &r.hand.buckets[i], r.hand.part.rtt_max[side])

# ------------------------------------------------------------------------------------------------ the order

# By SYNs in the interval (the first of the counts) plus live connections, ties by key.
cdef inline bint is_worse(const Part* a, const Part* b) noexcept nogil:
    cdef int64_t of_a = a.counts[0] + a.gauges[G_CONNECTIONS], of_b = b.counts[0] + b.gauges[G_CONNECTIONS]
    return of_a < of_b or (of_a == of_b and memcmp(a.id, b.id, ID_BYTES) > 0)

cdef inline bint _before(const Ranking* r, uint32_t a, uint32_t b) noexcept nogil:
    return is_worse(&r.ranked[r.order[a]].part, &r.ranked[r.order[b]].part)

cdef inline void _exchange(Ranking* r, uint32_t a, uint32_t b) noexcept nogil:
    cdef uint32_t kept = r.order[a]
    r.order[a] = r.order[b]
    r.order[b] = kept

cdef inline void _rise(Ranking* r, uint32_t at) noexcept nogil:
    while at and _before(r, at, (at - 1) // 2):
        _exchange(r, at, (at - 1) // 2)
        at = (at - 1) // 2

cdef inline void _sink(Ranking* r, uint32_t at, uint32_t count) noexcept nogil:
    cdef uint32_t below = 2 * at + 1
    while below < count:
        if below + 1 < count and _before(r, below + 1, below):
            below += 1
        if not _before(r, below, at):
            return
        _exchange(r, at, below)
        at = below
        below = 2 * at + 1

cdef inline bint _may_hold_more(Ranking* r) noexcept nogil:
    cdef uint32_t room = min(max(2 * r.room, <uint32_t>16), r.top)
    cdef Ranked* ranked
    cdef uint32_t* order
    if r.count < r.room:
        return True
    ranked = <Ranked*>realloc(r.ranked, room * sizeof(Ranked))
    if ranked != NULL:
        r.ranked = ranked
        memset(ranked + r.room, 0, (room - r.room) * sizeof(Ranked))
    order = <uint32_t*>realloc(r.order, room * sizeof(uint32_t))
    if order != NULL:
        r.order = order
    r.no_memory = ranked == NULL or order == NULL
    r.room = r.room if r.no_memory else room
    return not r.no_memory

cdef inline void _put_in(Ranking* r, uint32_t place) noexcept nogil:
    cdef Ranked kept = r.ranked[place]
    r.ranked[place] = r.hand
    r.hand = kept

# Takes the key in hand in among the first, or adds it, or the one that it drives out, to the others.
cdef inline void rank_key(Ranking* r) noexcept nogil:
    if r.hand.part.id[ID_VERSION] == ID_OTHERS:
        _add_other(r)
    elif r.count < r.top:
        if _may_hold_more(r):
            r.order[r.count] = r.count
            _put_in(r, r.count)
            r.count += 1
            _rise(r, r.count - 1)
    else:
        if is_worse(&r.ranked[r.order[0]].part, &r.hand.part):
            _put_in(r, r.order[0])
            _sink(r, 0, r.count)
        _add_other(r)

# All have come: `order` is that of the rows.
cdef inline void order_keys(Ranking* r) noexcept nogil:
    cdef uint32_t last
    for last in range(r.count - 1 if r.count else 0, 0, -1):
        _exchange(r, 0, last)
        _sink(r, 0, last)

cdef inline void forget_keys(Ranking* r) noexcept nogil:
    cdef int side
    r.count = 0
    r.has_others = False
    for side in range(2):
        if r.others_rtt[side].samples:
            memset(r.others_rtt[side].buckets, 0, RTT_BUCKETS * sizeof(uint64_t))
            r.others_rtt[side].samples = 0

cdef inline void ranking_free(Ranking* r) noexcept nogil:
    cdef uint32_t i
    for i in range(r.room):
        free(r.ranked[i].buckets)
    free(r.ranked)
    free(r.order)
    free(r.hand.buckets)
    free(r.others_rtt[0].buckets)
    free(r.others_rtt[1].buckets)

# ------------------------------------------------------------------------------------------------ quantiles

cdef inline int _by_place(const void* a, const void* b) noexcept nogil:
    cdef uint32_t of_a = (<const Bucket*>a).place, of_b = (<const Bucket*>b).place
    return <int>(of_a > of_b) - <int>(of_a < of_b)

# Puts buckets in the order of their places; those of the server then come first.
cdef inline void order_buckets(Ranked* ranked) noexcept nogil:
    if ranked.count:
        qsort(ranked.buckets, ranked.count, sizeof(Bucket), _by_place)

# The middle of the nearest-rank value's bucket. Before: the buckets are in order, samples > 0.
cdef inline int64_t bucket_quantile(const Bucket* bucket, uint64_t samples, int percent) noexcept nogil:
    cdef uint64_t rank = (samples * <uint64_t>percent + 99) // 100
    cdef uint64_t below = bucket.samples
    while below < rank:
        bucket += 1
        below += bucket.samples
    return rtt_bucket_middle(bucket.place & ~<uint32_t>SIDE_BIT)
