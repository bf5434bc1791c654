from libc.stdint cimport int64_t, uint32_t

from synfin._core.sink cimport AddressBook, Sink

cdef enum:
    BLOCK_ROWS = 16384
    INTERVAL_BLOCK_ROWS = 4096
    MOST_SPARE = 16


cdef class Pool:
    cdef void* spare[MOST_SPARE]
    cdef int count
    cdef bint closed

    cdef void* take(self, size_t size) noexcept
    cdef void give(self, void* start) noexcept
    cdef void close(self) noexcept


cdef class Memory:
    cdef void* start
    cdef Py_ssize_t size
    cdef Memory owner
    cdef Pool pool


cdef class Block:
    cdef readonly int rows
    cdef readonly list names
    cdef dict _buffers
    cdef dict _dictionaries


cdef tuple asked_columns(columns, wanted)
cdef int sink_open(Sink* sink, list names, list kinds, uint32_t capacity, bint with_addresses, Pool pool=*) except -1
cdef void sink_close(Sink* sink) noexcept
cdef Block sink_take(Sink* sink, list names, list kinds, dict texts, Pool pool=*)
