"""The block of packets that a source fills and the tracker reads."""

cimport cython
from libc.stdint cimport UINT32_MAX, uint8_t

from synfin._core.types cimport BATCH_PACKETS, PacketRef


@cython.final
cdef class PacketBatch:
    """Up to 256 packets whose bytes belong to the source that filled it.

    The bytes stay valid until the source fills the batch again. `append` and `packets` are for tests and for looking;
    sources and the tracker work on the C struct.
    """

    def __cinit__(self):
        self.c.count = 0
        self._keep = []

    def __len__(self):
        return self.c.count

    def clear(self):
        """Forget all packets."""
        self.c.count = 0
        self._keep.clear()

    def append(self, bytes data not None, time_ns, clock_ns=None, number=0, file_id=-1, interface_id=-1, link_type=1,
               wire_len=None, flags=0):
        """Add one packet and keep a reference to its bytes.

        Parameters
        ----------
        data : bytes from the link-layer header on.
        time_ns, clock_ns : nanoseconds since 1970; the clock is the timestamp unless given.
        number : from 1 in its file.
        file_id, interface_id : index in the run's lists; -1 for none.
        link_type : LINKTYPE_ value.
        wire_len : bytes on the wire, the captured length unless given.
        flags : PF_* of types.pxd.

        Raises
        ------
        IndexError : the batch is full.
        """
        if self.c.count >= BATCH_PACKETS:
            raise IndexError(f"a batch holds at most {BATCH_PACKETS} packets")
        if len(data) > UINT32_MAX:
            raise ValueError("a packet is shorter than 4 GiB")
        cdef const uint8_t* start = data
        cdef PacketRef* p = &self.c.packets[self.c.count]
        p.data = start
        p.captured_len = <unsigned int>len(data)
        p.wire_len = len(data) if wire_len is None else wire_len
        p.time_ns = time_ns
        p.clock_ns = time_ns if clock_ns is None else clock_ns
        p.stamp_ns = time_ns
        p.number = number
        p.file_id = file_id
        p.interface_id = interface_id
        p.link_type = link_type
        p.vlan_tci = 0
        p.flags = flags
        p.tap = 0
        self._keep.append(data)
        self.c.count += 1

    def part(self, low, high):
        """A batch of the packets `low` to `high` (exclusive), which borrows their bytes as this one does."""
        cdef PacketBatch part = PacketBatch()
        cdef unsigned int i
        if not 0 <= low <= high <= self.c.count:
            raise IndexError(f"the batch holds {self.c.count} packets")
        for i in range(low, high):
            part.c.packets[part.c.count] = self.c.packets[i]
            part.c.count += 1
        part._keep = list(self._keep)
        return part

    def captured(self, unsigned int which):
        """One packet as it was captured.

        Returns
        -------
        (data, stamp_ns, wire_len, link_type, interface_id) : bytes, copied; the timestamp in nanoseconds since 1970, also
            where the clock has replaced it; bytes on the wire; LINKTYPE_ value; index in the run's list, -1 for none.

        Raises
        ------
        IndexError : the batch holds no such packet.
        """
        if which >= self.c.count:
            raise IndexError("the batch holds no such packet")
        cdef PacketRef* p = &self.c.packets[which]
        data = p.data[:p.captured_len] if p.captured_len else b""
        return data, p.stamp_ns, p.wire_len, p.link_type, p.interface_id

    def packets(self):
        """The packets as a list of tuples.

        Returns
        -------
        list of (data, time_ns, clock_ns, number, file_id, interface_id, link_type, wire_len, flags); bytes are copied.
        """
        cdef PacketRef* p
        cdef unsigned int i
        rows = []
        for i in range(self.c.count):
            p = &self.c.packets[i]
            data = p.data[:p.captured_len] if p.captured_len else b""
            rows.append((data, p.time_ns, p.clock_ns, p.number, p.file_id, p.interface_id, p.link_type, p.wire_len,
                         p.flags))
        return rows
