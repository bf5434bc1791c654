from synfin._core.types cimport Batch


cdef class PacketBatch:
    cdef Batch c
    cdef list _keep          # what appended packets borrow their bytes from
