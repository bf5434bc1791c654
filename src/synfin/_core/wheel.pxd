# Deadlines by capture time: four wheels of 256 buckets, each bucket of one spanning the whole next lower one. A record
# hangs in the bucket of a deadline that it once had. A packet that moves the deadline later leaves it there; the bucket
# moves it on when it comes up. So a packet costs nothing here, and a sweep costs what ends in it, not what lives.
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

cdef enum:
    WHEEL_BITS = 8
    WHEEL_BUCKETS = 256
    WHEEL_LEVELS = 4
    NO_SLOT = 1024           # after all buckets of all wheels

cdef struct Wheel:
    int64_t now              # tick whose bucket is in hand; all earlier ones are empty
    int tick_shift           # a tick is 2^tick_shift ns
    uint32_t level_count[WHEEL_LEVELS]
    uint32_t heads[WHEEL_LEVELS * WHEEL_BUCKETS]

cdef inline void wheel_init(Wheel* wheel, int tick_shift) noexcept nogil:
    memset(wheel, 0, sizeof(Wheel))
    wheel.tick_shift = tick_shift

# The bucket for a deadline, at or after `now`; beyond the last wheel's span it waits in its farthest bucket.
cdef inline uint16_t wheel_slot(const Wheel* wheel, int64_t deadline) noexcept nogil:
    cdef int64_t tick = deadline >> wheel.tick_shift
    cdef int level
    if tick < wheel.now:
        tick = wheel.now
    for level in range(WHEEL_LEVELS):
        # The bucket of `now` itself on a higher level was emptied when `now` entered it.
        if (tick >> (WHEEL_BITS * level)) - (wheel.now >> (WHEEL_BITS * level)) < WHEEL_BUCKETS:
            return <uint16_t>(level * WHEEL_BUCKETS + ((tick >> (WHEEL_BITS * level)) & (WHEEL_BUCKETS - 1)))
    level = WHEEL_LEVELS - 1
    return <uint16_t>(level * WHEEL_BUCKETS + (((wheel.now >> (WHEEL_BITS * level)) - 1) & (WHEEL_BUCKETS - 1)))

# The first tick after `now` at which a bucket may hold something, at most `target`.
cdef inline int64_t wheel_next(const Wheel* wheel, int64_t target) noexcept nogil:
    cdef int level = 0
    cdef int64_t tick
    while level < WHEEL_LEVELS and wheel.level_count[level] == 0:
        level += 1
    if level == WHEEL_LEVELS:
        return target
    tick = ((wheel.now >> (WHEEL_BITS * level)) + 1) << (WHEEL_BITS * level)
    return tick if tick < target else target
