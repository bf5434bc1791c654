"""Blocks of finished rows: the sink's column buffers, handed to Python as they are."""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdint cimport int32_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from synfin._core.sink cimport MAX_COLUMNS, WIDTH_BIT, WIDTH_BYTES, AddressBook, ColumnBuffer, Sink

cdef extern from "core.h" nogil:
    void* zeroed_block(size_t size)

import hashlib
import os
from array import array
from base64 import b64encode
from itertools import accumulate

from synfin.errors import SynfinError

cdef uint64_t SEED = int.from_bytes(os.urandom(8), "little")     # of the index over a block's addresses only
WIDTHS = {"instant": 8, "int64": 8, "int32": 4, "int16": 2, "bool": WIDTH_BIT, "text": 4}
BYTES = ("community_id", "zeek_history")     # columns of WIDTH_BYTES
ADDRESS_TEXT = 40            # the longest IPv6 address has 39 characters


@cython.final
@cython.no_gc
cdef class Pool:
    """Memory of large blocks that were read, for the next ones: all are of one size, and the system clears what it gives
    anew, which takes longer than to fill it. Used with the GIL only.
    """

    cdef void* take(self, size_t size) noexcept:
        """`size` bytes, the same in each call, all zero; NULL without memory."""
        if self.count == 0:
            return zeroed_block(size)
        self.count -= 1
        memset(self.spare[self.count], 0, size)
        return self.spare[self.count]

    cdef void give(self, void* start) noexcept:
        """Take back what `take` gave."""
        if self.closed or self.count == MOST_SPARE:
            free(start)
        else:
            self.spare[self.count] = start
            self.count += 1

    cdef void close(self) noexcept:
        """Keep nothing from now on."""
        self.closed = True
        while self.count:
            self.count -= 1
            free(self.spare[self.count])

    def __dealloc__(self):
        self.close()


@cython.final
@cython.no_gc
cdef class Memory:
    """A piece of memory with the buffer protocol, or a part of its owner; it is freed with its last reader."""

    def __cinit__(self):
        self.start = NULL
        self.size = 0

    def __dealloc__(self):
        if self.owner is not None:
            return
        if self.pool is not None:
            self.pool.give(self.start)
        else:
            free(self.start)

    def __len__(self):
        return self.size

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.start, self.size, 0, flags)


cdef Memory memory_of(void* start, Py_ssize_t size, Memory owner=None):
    cdef Memory memory = Memory()
    memory.start = start
    memory.size = size
    memory.owner = owner
    return memory


@cython.final
cdef class Block:
    """Rows of one table as Arrow buffers (little endian, bitmaps least significant bit first).

    Attributes
    ----------
    rows : number of rows.
    names : the columns, in the order of the schema.
    """

    def buffers(self, str name not None):
        """``(validity, values)`` of a column; both have the buffer protocol. Enumerations and texts are codes."""
        return self._buffers[name]

    def dictionary(self, str name not None):
        """``(length, offsets, data)`` of a text column's dictionary as an Arrow string array (int32 offsets)."""
        return self._dictionaries[name]


cdef int book_open(AddressBook* book, uint32_t rows) except -1:
    cdef uint32_t room = 4 * rows    # both ends, and the outermost tunnel's
    cdef uint32_t slots = 1024
    while slots < 2 * room:
        slots *= 2
    memset(book, 0, sizeof(AddressBook))
    book.room = room
    book.mask = slots - 1
    book.seed = SEED
    book.slots = <uint32_t*>calloc(slots, sizeof(uint32_t))
    book.keys = <uint8_t*>calloc(room, 17)
    book.offsets = <int32_t*>calloc(room + 1, sizeof(int32_t))
    book.text = <char*>calloc(room, ADDRESS_TEXT)
    if book.slots == NULL or book.keys == NULL or book.offsets == NULL or book.text == NULL:
        raise MemoryError("no memory for the addresses of a block of rows")
    return 0


cdef void book_close(AddressBook* book) noexcept:
    free(book.slots)
    free(book.keys)
    free(book.offsets)
    free(book.text)
    memset(book, 0, sizeof(AddressBook))


cdef uint64_t buffer_bytes(int width, uint32_t rows) noexcept:
    """What a buffer takes in a sink's memory: whole cache lines, as Arrow wants its buffers."""
    return ((rows + 7) // 8 if width == WIDTH_BIT else <uint64_t>rows * width) + 63 & ~<uint64_t>63


cdef int sink_open(
    Sink* sink, list names, list kinds, uint32_t capacity, bint with_addresses, Pool pool=None
) except -1:
    """Fresh buffers for `capacity` rows. `kinds`: per column of the schema its kind, None where it is not asked for.

    `pool`: given where the rows will be so many. All columns then lie in pages of 2 MiB, where the system gives them: a
    row goes to some 250 places, and without such pages each of them is another page.
    """
    cdef int i
    cdef ColumnBuffer* c
    cdef uint8_t* at
    cdef uint64_t size = 0
    sink.rows = 0
    sink.capacity = capacity
    for i in range(len(kinds)):
        if kinds[i] is not None:
            sink.columns[i].width = WIDTH_BYTES if names[i] in BYTES else WIDTHS.get(kinds[i], 1)
            size += buffer_bytes(sink.columns[i].width, capacity) + buffer_bytes(WIDTH_BIT, capacity)
    sink.pooled = pool is not None
    sink.memory = pool.take(size) if sink.pooled else calloc(1, size + 1)
    if sink.memory == NULL:
        raise MemoryError("no memory for a block of rows")
    at = <uint8_t*>sink.memory
    for i in range(len(kinds)):
        if kinds[i] is not None:
            c = &sink.columns[i]
            c.valid = at
            c.values = at + buffer_bytes(WIDTH_BIT, capacity)
            at = c.values + buffer_bytes(c.width, capacity)
    for i in range(<int>MAX_COLUMNS):
        sink.asked_before[i + 1] = sink.asked_before[i] + (i < len(kinds) and kinds[i] is not None)
    if with_addresses:
        book_open(&sink.addresses, capacity)
    return 0


cdef void sink_close(Sink* sink) noexcept:
    free(sink.memory)
    book_close(&sink.addresses)
    memset(sink, 0, sizeof(Sink))


cdef tuple text_dictionary(list texts):
    """An Arrow string array of Python texts: (length, offsets, data)."""
    parts = [text.encode("utf-8", "surrogateescape").decode("utf-8", "replace").encode("utf-8") for text in texts]
    offsets = accumulate((len(part) for part in parts), initial=0)
    return len(parts), array("i", offsets).tobytes(), b"".join(parts)


cdef tuple shift_codes(ColumnBuffer* column, uint32_t rows, list texts):
    """Makes codes of a run-wide list start at the lowest one used: a block carries only the texts that it may use."""
    cdef int32_t* codes = <int32_t*>column.values
    cdef int32_t low = 0x7FFFFFFF
    cdef int32_t high = -1
    cdef uint32_t i
    for i in range(rows):
        if (column.valid[i >> 3] >> (i & 7)) & 1:
            low = codes[i] if codes[i] < low else low
            high = codes[i] if codes[i] > high else high
    if high < 0:
        return text_dictionary([""])
    for i in range(rows):
        if (column.valid[i >> 3] >> (i & 7)) & 1:
            codes[i] -= low
    if high >= len(texts):
        raise SynfinError(f"the tracker was given {len(texts)} names and needs {high + 1}")
    return text_dictionary(texts[low:high + 1])


cdef tuple texts_of_bytes(ColumnBuffer* column, uint32_t rows, bint hashed):
    """Codes in place of the bytes that rows hold, and the dictionary of their texts."""
    cdef int32_t* codes = <int32_t*>column.values    # those of a row never reach the bytes of a later one
    cdef const uint8_t* at = column.values
    cdef uint32_t i
    cdef dict known = {}
    for i in range(rows):
        codes[i] = known.setdefault(at[1:1 + at[0]], len(known))
        at += WIDTH_BYTES
    column.width = sizeof(int32_t)
    if not hashed:
        return text_dictionary([part.decode("ascii") for part in known])
    digests = (hashlib.sha1(part, usedforsecurity=False).digest() for part in known)
    return text_dictionary([f"1:{b64encode(digest).decode()}" for digest in digests])


cdef tuple asked_columns(columns, wanted):
    """Names of all columns of a table, and of each its kind; None where it is not `wanted` (None: the usual ones)."""
    names = [column.name for column in columns]
    if wanted is not None:
        unknown = set(wanted) - set(names)
        if unknown:
            raise SynfinError(f"no such column: {', '.join(sorted(unknown))}")
    if wanted is None:
        return names, [None if column.optional else column.kind for column in columns]
    return names, [column.kind if column.name in wanted else None for column in columns]


cdef Block sink_take(Sink* sink, list names, list kinds, dict texts, Pool pool=None):
    """The sink's rows as a block; the sink has no buffers afterwards. `texts`: column -> run-wide list of its texts.
    `pool`: where a sink opened with one gets its memory back.
    """
    cdef Block block = Block()
    cdef ColumnBuffer* c
    cdef Py_ssize_t bitmap = (sink.rows + 7) // 8
    cdef int i
    block.rows = sink.rows
    block.names = []
    block._buffers = {}
    block._dictionaries = {}
    cdef Memory memory = memory_of(sink.memory, 0)
    sink.memory = NULL
    if sink.pooled:
        memory.pool = pool
    addresses = None
    for i in range(len(names)):
        c = &sink.columns[i]
        if c.values == NULL:
            continue
        name = names[i]
        if kinds[i] == "text":
            if c.width == WIDTH_BYTES:
                block._dictionaries[name] = texts_of_bytes(c, sink.rows, name == "community_id")
            elif name in texts:
                block._dictionaries[name] = shift_codes(c, sink.rows, texts[name])
            else:
                if addresses is None:
                    addresses = take_addresses(&sink.addresses)
                block._dictionaries[name] = addresses
        block.names.append(name)
        block._buffers[name] = (
            memory_of(c.valid, bitmap, memory),
            memory_of(c.values, bitmap if c.width == WIDTH_BIT else <Py_ssize_t>sink.rows * c.width, memory),
        )
    sink_close(sink)
    return block


cdef tuple take_addresses(AddressBook* book):
    cdef tuple taken = (
        <int>book.count if book.count else 1,
        memory_of(book.offsets, (book.count + 1 if book.count else 2) * sizeof(int32_t)),
        memory_of(book.text, book.text_used),
    )
    book.offsets = NULL
    book.text = NULL
    return taken
