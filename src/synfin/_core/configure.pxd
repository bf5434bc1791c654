from libc.stdint cimport uint32_t

from synfin._core.core cimport Core


cdef int configure(Core* core, settings, list flow_kinds, uint32_t most_keys) except -1
cdef object list_services(Core* core, services)
cdef int watch_selection(Core* core, selection) except -1
cdef int bound(Core* core, settings) except -1
cdef void free_core(Core* core) noexcept
