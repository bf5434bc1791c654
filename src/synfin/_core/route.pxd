from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from synfin._core.types cimport Batch

cdef enum:
    SHARE_BATCHES = 16       # of one worker in one round

# What one worker gets in a round: packets whose bytes stand in `bytes`.
cdef struct Share:
    Batch* batches           # SHARE_BATCHES
    uint32_t count           # batches in use; all but the last of them are full
    uint32_t at              # the batch in hand
    uint8_t* bytes
    uint64_t used
    uint64_t size


cdef class Round:
    cdef Share* shares
    cdef readonly int workers
    cdef int64_t first_clock     # the input clock at its first packet, and at its last; NEVER: no packet
    cdef int64_t clock
    cdef bint steps              # after it the clock steps back
    cdef int64_t step_ns         # ... to here
    cdef readonly bint knows_drops
    cdef int64_t drops
