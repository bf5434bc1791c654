# Memory of equal items, addressed by 32-bit numbers that never move: chunks of 2^shift items, a free list through the
# first four bytes of freed items, number 0 standing for "none": its item holds zeros and may be read. Chunks are taken
# between batches only (arena_reserve), so that arena_take cannot fail and nothing is allocated per packet.
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

cdef extern from "core.h" nogil:
    void* aligned_block(size_t size)
    void* huge_block(size_t size)

cdef enum:
    RECORDS_SHIFT = 12       # items a chunk: of what every connection has
    BLOCKS_SHIFT = 8         # ... of what few connections have
    SLAB_CHUNKS = 32         # chunks of records that are allocated at once, untouched before they are taken

cdef struct Arena:
    char** chunks
    uint32_t item_bytes
    uint32_t shift
    uint32_t chunk_count
    uint32_t chunk_room
    uint32_t fresh           # the lowest number never taken
    uint32_t free_head
    uint32_t free_count

cdef inline void arena_init(Arena* arena, uint32_t item_bytes, uint32_t shift) noexcept nogil:
    memset(arena, 0, sizeof(Arena))
    arena.item_bytes = item_bytes
    arena.shift = shift
    arena.fresh = 1

cdef inline void arena_free(Arena* arena) noexcept nogil:
    cdef uint32_t i
    for i in range(arena.chunk_count):
        if arena.shift != RECORDS_SHIFT or i % SLAB_CHUNKS == 0:
            free(arena.chunks[i])
    free(arena.chunks)
    arena_init(arena, arena.item_bytes, arena.shift)

cdef inline void* arena_at(const Arena* arena, uint32_t number) noexcept nogil:
    return arena.chunks[number >> arena.shift] + <uint64_t>(number & ((1 << arena.shift) - 1)) * arena.item_bytes

cdef inline char* _next_chunk(Arena* arena) noexcept nogil:
    cdef uint64_t bytes = <uint64_t>arena.item_bytes << arena.shift
    if arena.shift != RECORDS_SHIFT:
        return <char*>aligned_block(bytes)
    if arena.chunk_count % SLAB_CHUNKS:
        return arena.chunks[arena.chunk_count - 1] + bytes
    return <char*>huge_block(SLAB_CHUNKS * bytes)

# Items that can be taken without a further chunk.
cdef inline int64_t items_left(const Arena* arena) noexcept nogil:
    return <int64_t>arena.free_count + (<int64_t>arena.chunk_count << arena.shift) - arena.fresh

# Makes sure that `count` items can be taken. Returns 0, or -1 without memory.
cdef inline int arena_reserve(Arena* arena, uint32_t count) noexcept nogil:
    cdef char** chunks
    cdef char* chunk
    while items_left(arena) < count:
        if arena.chunk_count == arena.chunk_room:
            chunks = <char**>realloc(arena.chunks, sizeof(char*) * (2 * <uint64_t>arena.chunk_room + 16))
            if chunks == NULL:
                return -1
            arena.chunks = chunks
            arena.chunk_room = 2 * arena.chunk_room + 16
        chunk = _next_chunk(arena)
        if chunk == NULL:
            return -1
        if arena.chunk_count == 0:
            memset(chunk, 0, arena.item_bytes)
        arena.chunks[arena.chunk_count] = chunk
        arena.chunk_count += 1
    return 0

# The number of a zeroed item. Before: arena_reserve promised it.
cdef inline uint32_t arena_take(Arena* arena) noexcept nogil:
    cdef uint32_t number = arena.free_head
    if number:
        arena.free_head = (<uint32_t*>arena_at(arena, number))[0]
        arena.free_count -= 1
    else:
        number = arena.fresh
        arena.fresh += 1
    memset(arena_at(arena, number), 0, arena.item_bytes)
    return number

cdef inline void arena_give(Arena* arena, uint32_t number) noexcept nogil:
    (<uint32_t*>arena_at(arena, number))[0] = arena.free_head
    arena.free_head = number
    arena.free_count += 1

cdef inline uint64_t arena_bytes(const Arena* arena) noexcept nogil:
    return (<uint64_t>arena.chunk_count << arena.shift) * arena.item_bytes + arena.chunk_room * sizeof(char*)
