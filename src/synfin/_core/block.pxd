from libc.stdint cimport int64_t, uint32_t

from synfin._core.sink cimport AddressBook, Sink

cdef enum:
    INTERVAL_BLOCK_ROWS = 4096


cdef class Memory:
    cdef void* start
    cdef Py_ssize_t size
    cdef Memory owner


cdef class Block:
    cdef readonly int rows
    cdef readonly list names
    cdef dict _buffers
    cdef dict _dictionaries


cdef tuple asked_columns(columns, wanted)
cdef int sink_open(Sink* sink, list names, list kinds, uint32_t capacity, bint with_addresses, bint large=*) except -1
cdef void sink_close(Sink* sink) noexcept
cdef Block sink_take(Sink* sink, list names, list kinds, dict texts)
