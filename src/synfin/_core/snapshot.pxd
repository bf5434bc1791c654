from synfin._core.core cimport Core
from synfin._core.types cimport PacketRef


cdef object live_record(Core* core, const PacketRef* packet, list files, list interfaces)
