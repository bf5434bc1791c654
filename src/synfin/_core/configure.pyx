"""What settings make of a core before its first packet: times, tables, the selection and the bounds on memory."""

from libc.stdint cimport UINT32_MAX, int64_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from synfin._core.account cimport new_histogram
from synfin._core.arena cimport arena_free, arena_reserve
from synfin._core.block cimport BLOCK_ROWS, sink_close
from synfin._core.by cimport by_free, by_init, key_of_others
from synfin._core.core cimport *
from synfin._core.duplicates cimport firsts_free
from synfin._core.keyed cimport BY_SERVICE
from synfin._core.listed cimport Listed, Listing
from synfin._core.memory cimport ARENAS, NO_MEMORY, OVER_LIMIT, arena_by_number, grow_table, init_arenas, reserve
from synfin._core.parts cimport ID_BYTES
from synfin._core.watch cimport Watch, WatchedEnd, watch_free

import os

from synfin import schema, states
from synfin.errors import ConfigError
from synfin.settings import DUPLICATES, zeek_server_ports

#: With a limit on memory, what is left of it to input and output: an eighth for what is unpacked ahead, this for chunks
#: of input and for libraries that are loaded later, and rows on their way out: a row group, three blocks beside it,
#: and what they are encoded to.
cdef enum:
    INPUT_BYTES = 32 << 20
    ROWS_ON_THEIR_WAY = 2 * 122880 + 3 * BLOCK_ROWS
    LEAST_BYTES = 16 << 20   # for connections


# The core is zeroed.
cdef int configure(Core* core, settings, list flow_kinds, uint32_t most_keys) except -1:
    _read_settings(core, settings, flow_kinds)
    _open_intervals(core, settings)
    init_arenas(core)
    _open_keys(core, settings, most_keys)
    if grow_table(&core.table, 4096) < 0:
        raise MemoryError("no memory for a tracker")
    return 0


cdef int _read_settings(Core* core, settings, list flow_kinds) except -1:
    cdef Config* config = &core.config
    cdef int64_t* timeout = config.timeout
    cdef bytes machine = states.matrix()
    cdef int port
    timeout[PH_SYN] = settings.attempt_timeout
    timeout[PH_SYNACK] = settings.half_open_timeout
    timeout[PH_OPEN] = settings.idle_timeout
    timeout[PH_ONE_SIDED] = settings.one_sided_timeout
    timeout[PH_CLOSING] = settings.closing_timeout
    timeout[PH_CLOSED] = settings.time_wait
    timeout[PH_RESET] = settings.reset_linger
    config.reorder = settings.reorder
    config.key_vlan = "vlan" in settings.key
    config.key_tunnel = "tunnel" in settings.key
    config.verify_checksums = settings.checksum == "verify"
    config.duplicates = DUPLICATES.index(settings.duplicates)
    config.seed = int.from_bytes(os.urandom(8), "little")    # of the index only: rows do not depend on it
    memcpy(config.machine, <const char*>machine, sizeof(config.machine))
    for port in settings.server_ports:
        config.server_ports[port >> 6] |= <uint64_t>1 << (port & 63)
    for port in zeek_server_ports():
        config.zeek_ports[port >> 6] |= <uint64_t>1 << (port & 63)
    config.others = any(flow_kinds[COL_ZEEK_CONN_STATE:COL_WIRESHARK_INITIAL_RTT_NS + 1])
    core.clock = NEVER
    return 0


cdef int bound(Core* core, settings) except -1:
    # Last, since what the process has by now is what it needs beside connections.
    cdef int got, i
    cdef int64_t outside = INPUT_BYTES, least
    for i in range(COL_COUNT):
        if core.rows.columns[i].values != NULL:
            outside += ROWS_ON_THEIR_WAY * <int64_t>max(core.rows.columns[i].width, 1)
    core.config.max_flows = core.cap = settings.max_flows or UINT32_MAX
    core.capped = settings.max_flows is not None or settings.max_memory is not None
    if settings.max_memory is not None:
        core.budget.limit = settings.max_memory
        core.budget.spare = settings.max_memory // 8 + outside
    got = reserve(core)
    if got == NO_MEMORY:
        raise MemoryError("no memory for a tracker")
    if got == OVER_LIMIT:
        least = (core.budget.beside + outside + LEAST_BYTES) // 7 * 8
        raise ConfigError(
            f"max_memory leaves no room for connections: the program has {core.budget.beside >> 20} MiB by itself, "
            f"and input and output of these columns may take {outside >> 20}; give at least {(least >> 20) + 1}M"
        )
    return 0


cdef int _open_intervals(Core* core, settings) except -1:
    cdef Intervals* iv = &core.intervals
    cdef int i, shift = 10
    cdef uint64_t slices = 64
    iv.interval_ns = settings.interval
    iv.slice_ns = settings.interval // SLICES
    iv.next_slice = NEVER
    iv.near_from = iv.near_to = NEVER
    # At a cap every packet may meet deadlines: a bucket then holds few that are not due yet, whatever their number.
    capped = settings.max_flows is not None or settings.max_memory is not None
    while not capped and (<int64_t>2 << shift) <= iv.slice_ns and shift < 27:
        shift += 1
    wheel_init(&core.wheel, shift)
    while slices < <uint64_t>(settings.reorder // iv.slice_ns) + 2 * SLICES:
        slices *= 2
    iv.slice_mask = <uint32_t>(slices - 1)
    iv.interval_mask = <uint32_t>(slices // 8 - 1)      # more intervals than slices // SLICES
    iv.slices = <Slice*>calloc(slices, sizeof(Slice))
    iv.intervals = <Interval*>calloc(iv.interval_mask + 1, sizeof(Interval))
    if iv.slices == NULL or iv.intervals == NULL:
        raise MemoryError("no memory for the interval table")
    for i in range(RTTS):
        iv.run_rtt[i].histogram.buckets = new_histogram()
    for i in range(2):
        for number in range(iv.interval_mask + 1):
            iv.intervals[<uint32_t>number].rtt[i].buckets = new_histogram()
    return 0


cdef int _open_keys(Core* core, settings, uint32_t most) except -1:
    cdef Intervals* iv = &core.intervals
    cdef ByKey* by
    cdef int table
    core.told = NEVER
    for table, name in enumerate(schema.BY):
        if name not in settings.by:
            continue
        core.keyed = True
        by = &core.by[table]
        by_init(by, most)
        by.interval_tallies = <uint32_t*>calloc(iv.interval_mask + 1, sizeof(uint32_t))
        by.slice_changes = <uint32_t*>calloc(iv.slice_mask + 1, sizeof(uint32_t))
        if by.interval_tallies == NULL or by.slice_changes == NULL or arena_reserve(&by.keys, 1) < 0:
            raise MemoryError("no memory for the interval table by key")
        key_of_others(by, table)
    return 0


cdef bytes _id_of_service(str address, int port):
    # As in a key's id (by.pxd).
    from ipaddress import ip_address  # a run without services starts without it

    packed = ip_address(address).packed
    return bytes((BY_SERVICE + 1, 4 if len(packed) == 4 else 6)) + packed.ljust(16, b"\0") + port.to_bytes(2, "big")


# Servers (address, port) of which the core counts apart. Returns them in its order, or None where there are none.
cdef object list_services(Core* core, services):
    cdef Listing* listing = &core.listing
    cdef bytes id
    cdef uint32_t i
    ids = sorted((_id_of_service(address, port), (address, port)) for address, port in services)
    if not ids:
        return None
    listing.services = <Listed*>calloc(len(ids), sizeof(Listed))
    if listing.services == NULL:
        raise MemoryError("no memory for services")
    for i in range(<uint32_t>len(ids)):
        id = ids[i][0]
        memcpy(listing.services[i].id, <const uint8_t*>id, ID_BYTES)
    listing.count = <uint32_t>len(ids)
    core.keyed = True
    return [service for _, service in ids]


cdef int watch_selection(Core* core, selection) except -1:
    cdef Watch* watch = <Watch*>calloc(1, sizeof(Watch))
    cdef WatchedEnd* side
    cdef const uint8_t* address
    cdef bytes packed
    if watch == NULL:
        raise MemoryError("no memory for a selection")
    core.watch = watch
    watch.by_flow_id = selection.flow_id is not None
    watch.flow_id = selection.flow_id or 0
    for i, asked in enumerate((selection.client, selection.server)):
        if asked is None:
            continue
        packed, port = asked
        address = packed
        side = &watch.side[<int>i]
        side.asked = True
        side.ip_version = 4 if len(packed) == 4 else 6
        memcpy(side.addr, address, min(len(packed), 16))
        side.port = -1 if port is None else port
    return 0


cdef void free_core(Core* core) noexcept:
    cdef Intervals* iv = &core.intervals
    cdef uint32_t i
    cdef int number
    for number in range(ARENAS):
        arena_free(arena_by_number(core, number))
    free(core.table.slots)
    firsts_free(&core.firsts)
    free(iv.slices)
    if iv.intervals != NULL:
        for i in range(iv.interval_mask + 1):
            free(iv.intervals[i].rtt[0].buckets)
            free(iv.intervals[i].rtt[1].buckets)
    free(iv.intervals)
    for number in range(RTTS):
        free(iv.run_rtt[number].histogram.buckets)
    sink_close(&core.rows)
    sink_close(&core.interval_rows)
    free(core.parts.room)
    for number in range(KEY_TABLES):
        by_free(&core.by[number])
    free(core.listing.services)
    if core.programs != NULL:
        for i in range(65536):
            free(core.programs[i].steps)
        free(core.programs)
    if core.watch != NULL:
        watch_free(core.watch)
    free(core)
