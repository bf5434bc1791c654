# Finished rows as Arrow column buffers: one row at a time is written straight into them; when a block is full, or asked
# for, Python takes the buffers as they are. Columns that nobody asked for have no buffers and cost a test of a pointer.
from libc.stdint cimport int16_t, int32_t, int64_t, int8_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memset

from synfin._core.key cimport mix64

cdef extern from "core.h" nogil:
    const uint64_t MIX_D

cdef enum:
    MAX_COLUMNS = 160
    WIDTH_BIT = 0
    WIDTH_BYTES = 65         # a length and as many bytes, at most 64: a text that Python makes of them

cdef struct ColumnBuffer:
    uint8_t* values          # NULL: not asked for; in the sink's memory, as is `valid`
    uint8_t* valid           # bitmap, 1 = not null
    int width                # bytes a value; WIDTH_BIT: a bitmap

# The addresses of one block as text, each once. `slots` is an open-addressing index over `keys`, seeded: senders choose
# addresses.
cdef struct AddressBook:
    uint32_t count
    uint32_t room
    uint32_t mask
    uint64_t seed
    uint32_t* slots          # 0: empty, else 1 + index
    uint8_t* keys            # 17 bytes each: version, address
    int32_t* offsets
    char* text
    uint32_t text_used

cdef struct Sink:
    ColumnBuffer columns[MAX_COLUMNS]
    uint8_t asked_before[MAX_COLUMNS + 1]    # how many columns with a lower number have buffers
    uint32_t rows
    uint32_t capacity
    void* memory             # of all columns
    bint pooled              # it came from a Pool (block.pyx)
    AddressBook addresses

# Whether a column from `first` on and before `end` was asked for.
cdef inline bint are_asked(const Sink* sink, int first, int end) noexcept nogil:
    return sink.asked_before[first] != sink.asked_before[end]

# Before: the column was asked for.
cdef inline void write_int(const ColumnBuffer* c, uint32_t row, int64_t value) noexcept nogil:
    c.valid[row >> 3] |= 1 << (row & 7)
    if c.width == 8:
        (<int64_t*>c.values)[row] = value
    elif c.width == 4:
        (<int32_t*>c.values)[row] = <int32_t>value
    elif c.width == 1:
        (<int8_t*>c.values)[row] = <int8_t>value
    elif c.width == 2:
        (<int16_t*>c.values)[row] = <int16_t>value
    elif value:
        c.values[row >> 3] |= 1 << (row & 7)

# So small that it is compiled into every place where it stands: a column that nobody asked for costs a test there.
cdef inline void put_int(Sink* sink, int column, int64_t value) noexcept nogil:
    if sink.columns[column].values != NULL:
        write_int(&sink.columns[column], sink.rows, value)

# A text's bytes, at most 64, or what its text is made from. Before: the column's width is WIDTH_BYTES.
cdef inline void put_bytes(Sink* sink, int column, const uint8_t* data, uint8_t length) noexcept nogil:
    cdef ColumnBuffer* c = &sink.columns[column]
    cdef uint8_t* at
    if c.values == NULL:
        return
    c.valid[sink.rows >> 3] |= 1 << (sink.rows & 7)
    at = c.values + <uint64_t>sink.rows * WIDTH_BYTES
    at[0] = length
    memcpy(at + 1, data, length)

# A duration: null when negative (SPEC 2).
cdef inline void put_duration(Sink* sink, int column, int64_t value) noexcept nogil:
    if value >= 0:
        put_int(sink, column, value)

cdef inline int format_decimal(char* out, uint32_t value) noexcept nogil:
    cdef char digits[10]
    cdef int n = 0
    cdef int i
    while True:
        digits[n] = <char>(48 + value % 10)
        n += 1
        value //= 10
        if value == 0:
            break
    for i in range(n):
        out[i] = digits[n - 1 - i]
    return n

# RFC 5952: lower case, no leading zeros, the longest run of two or more zero groups (the first of equals) as "::".
cdef inline int format_ipv6(char* out, const uint8_t* addr) noexcept nogil:
    cdef const char* hexes = "0123456789abcdef"
    cdef int i, j, n = 0, run = 0, best = -1, best_length = 1, digit
    cdef uint32_t group
    cdef bint started
    for i in range(8):
        run = run + 1 if addr[2 * i] == 0 and addr[2 * i + 1] == 0 else 0
        if run > best_length:
            best_length = run
            best = i - run + 1
    i = 0
    while i < 8:
        if i == best:
            out[n] = b":"
            out[n + 1] = b":"
            n += 2
            i += best_length
            continue
        if i > 0 and not (best >= 0 and i == best + best_length):
            out[n] = b":"
            n += 1
        group = (<uint32_t>addr[2 * i] << 8) | addr[2 * i + 1]
        started = False
        for j in range(4):
            digit = (group >> (12 - 4 * j)) & 15
            if digit or started or j == 3:
                out[n] = hexes[digit]
                n += 1
                started = True
        i += 1
    return n

cdef inline int format_ipv4(char* out, const uint8_t* addr) noexcept nogil:
    cdef int i, n = 0
    for i in range(4):
        if i:
            out[n] = b"."
            n += 1
        n += format_decimal(out + n, addr[i])
    return n

# The code of an address in this block, its text made when it is new; `version` 0: of all others (schema.OTHER). Before:
# address_book_reserve gave room for one.
cdef inline int32_t address_code(AddressBook* book, uint8_t version, const uint8_t* addr) noexcept nogil:
    cdef uint8_t key[17]
    cdef uint64_t a, b
    cdef uint32_t at, index
    key[0] = version
    memcpy(key + 1, addr, 16)
    memcpy(&a, addr, 8)
    memcpy(&b, addr + 8, 8)
    at = <uint32_t>(mix64(a ^ book.seed, b ^ version ^ MIX_D) >> 32) & book.mask
    while book.slots[at]:
        index = book.slots[at] - 1
        if memcmp(book.keys + 17 * <uint64_t>index, key, 17) == 0:
            return <int32_t>index
        at = (at + 1) & book.mask
    index = book.count
    memcpy(book.keys + 17 * <uint64_t>index, key, 17)
    book.slots[at] = index + 1
    book.count += 1
    if version == 4:
        book.text_used += format_ipv4(book.text + book.text_used, addr)
    elif version == 6:
        book.text_used += format_ipv6(book.text + book.text_used, addr)
    else:
        memcpy(book.text + book.text_used, "other", 5)
        book.text_used += 5
    book.offsets[book.count] = <int32_t>book.text_used
    return <int32_t>index
