"""The tracker: batches of packets in, blocks of finished rows out. The only place where the packet path drops the GIL."""

cimport cython
from libc.stdint cimport UINT32_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from synfin._core.account cimport histogram_of, new_histogram, peaks_of, quantiles_of, skips_of
from synfin._core.arena cimport arena_bytes, arena_free, arena_reserve
from synfin._core.batch cimport PacketBatch
from synfin._core.block cimport INTERVAL_BLOCK_ROWS, Pool, asked_columns, sink_close, sink_open, sink_take
from synfin._core.by cimport by_bytes, by_free, by_init, key_of_others
from synfin._core.core cimport *
from synfin._core.duplicates cimport DUP_KEEP, firsts_bytes, firsts_free
from synfin._core.filter cimport Instruction, Program, filter_is_sound
from synfin._core.interim cimport Interim, interim_reserve, interim_step
from synfin._core.keyed cimport BY_SERVICE
from synfin._core.linktype cimport LK_UNKNOWN, first_layer
from synfin._core.listed cimport Listed, Listing
from synfin._core.memory cimport (
    ARENAS, NO_MEMORY, OVER_LIMIT, RESERVED, arena_by_number, init_arenas, reserve, reserve_keys,
)
from synfin._core.parts cimport ID_BYTES
from synfin._core.route cimport Round, Share
from synfin._core.snapshot cimport live_record
from synfin._core.stages cimport (
    Stages, decode_batch, prefetch_first, track_batch,
)
from synfin._core.sweep cimport cut_intervals, finish_records, rows_full, start_clock, step_back, sweep
from synfin._core.watch cimport Watch, WatchedEnd, watch_free, watch_wants

import os
from ipaddress import ip_address

from synfin import schema, states
from synfin._core.merging import IntervalMerge
from synfin.errors import ConfigError, SynfinError
from synfin.settings import DUPLICATES, zeek_server_ports

#: What a cap takes, in the order in which it does (core.pxd).
RANK_NAMES = ("unanswered", "half_open", "lingering", "open")
GAUGE_NAMES = tuple(column.name for column in schema.INTERVALS[ICOL_SYN_SENT:ICOL_MIDSTREAM + 1])
COUNT_NAMES = tuple(column.name for column in schema.INTERVALS[ICOL_SYNS:ICOL_CAPTURE_DROPS + 1])
BLOCK_ROWS = 16_384
INTERIM_BLOCK_ROWS = 4_096
#: With a limit on memory, what is left of it to input and output: an eighth for what is unpacked ahead, this for chunks
#: of input and for libraries that are loaded later, and rows on their way out: a row group, four blocks beside it,
#: and what they are encoded to.
INPUT_BYTES = 32 << 20
ROWS_ON_THEIR_WAY = 2 * 122_880 + 3 * BLOCK_ROWS
LEAST_BYTES = 16 << 20  # for connections
#: Services, and clients, that a run follows at once in tables by key; what belongs to further ones counts as `other`.
MOST_KEYS = 1 << 20
PARTS_BYTES = 1 << 20


@cython.final
cdef class Tracker:
    """Follows TCP connections through batches of packets.

    Parameters
    ----------
    settings : synfin.settings.Settings
    flow_columns, interval_columns : names of the columns to write; None for all but the optional ones, an empty list
        for none.
    filter : gives the BPF program (struct bpf_insn, native byte order) for a link type; None for no filter.
    selection : a synfin.settings.Selection; the packets of its records are then told by `selected`.
    several : how many trackers share the input. Of one of several, packets come in rounds (`work`) or from a ring of its
        own, and instead of rows of the interval table it tells its parts of them.
    most_keys : services, and clients, that tables by key follow apart at once; a tracker has its share of them.
    services : (address, port) of servers whose figures `services` tells; no address twice in two spellings.

    Notes
    -----
    A tracker belongs to one thread at a time. `feed` and `finish` drop the GIL.
    """

    cdef Core* core
    cdef Stages* stages
    cdef Interim* interims
    cdef list flow_names, flow_kinds, interval_names, interval_kinds
    cdef list files, interfaces
    cdef Pool pool           # of blocks of flows
    cdef uint32_t finishing  # the next record to end, 0 before the last sweep
    cdef bint finished
    cdef bint busy
    cdef object filter
    cdef list listed         # services in the order of Core.listing; None where none is listed
    cdef object merge        # of its own parts, where tables by key are asked for and it is the only tracker

    def __cinit__(self, settings, flow_columns=None, interval_columns=None, filter=None, selection=None,
                  int several=1, uint32_t most_keys=MOST_KEYS, services=()):
        self.core = <Core*>calloc(1, sizeof(Core))
        self.stages = <Stages*>calloc(1, sizeof(Stages))
        self.interims = <Interim*>calloc(1, sizeof(Interim))
        if self.core == NULL or self.stages == NULL or self.interims == NULL:
            raise MemoryError("no memory for a tracker")
        self.interims.begun = NEVER
        self.files = []
        self.interfaces = []
        self.flow_names, self.flow_kinds = asked_columns(schema.FLOWS, flow_columns)
        self.interval_names, self.interval_kinds = asked_columns(schema.INTERVALS, interval_columns)
        self._configure(settings)
        self._open_intervals(settings)
        init_arenas(self.core)
        self._open_keys(settings, most_keys // several)
        self._list(services)
        if grow_table(&self.core.table, 4096) < 0:
            raise MemoryError("no memory for a tracker")
        self.pool = Pool()
        self._open_rows()
        self._open_interval_rows()
        self.filter = filter
        if filter is not None:
            self.core.programs = <Program*>calloc(65536, sizeof(Program))
            if self.core.programs == NULL:
                raise MemoryError("no memory for a filter")
        if selection is not None:
            self._watch(selection)
        self._bound(settings)
        self.core.attended = self.core.capped or self.core.keyed or self.core.watch != NULL
        if several > 1 or settings.by:
            self.core.parts.size = PARTS_BYTES
            self.core.parts.room = <uint8_t*>malloc(PARTS_BYTES)
            if self.core.parts.room == NULL:
                raise MemoryError("no memory for the interval table")
        self.core.sorted_parts = several > 1
        if several == 1 and settings.by:
            self.merge = IntervalMerge(
                1, settings.interval, interval_columns, settings.duplicates != "keep", True, settings.top
            )

    def __dealloc__(self):
        cdef uint32_t i
        if self.core != NULL:
            for arena in range(ARENAS):
                arena_free(arena_by_number(self.core, arena))
            free(self.core.table.slots)
            firsts_free(&self.core.firsts)
            free(self.core.intervals.slices)
            if self.core.intervals.intervals != NULL:
                for i in range(self.core.intervals.interval_mask + 1):
                    free(self.core.intervals.intervals[i].rtt[0].buckets)
                    free(self.core.intervals.intervals[i].rtt[1].buckets)
            free(self.core.intervals.intervals)
            for rtt in range(RTTS):
                free(self.core.intervals.run_rtt[<int>rtt].histogram.buckets)
            sink_close(&self.core.rows)
            sink_close(&self.core.interval_rows)
            free(self.core.parts.room)
            for table in range(KEY_TABLES):
                by_free(&self.core.by[<int>table])
            free(self.core.listing.services)
            if self.core.programs != NULL:
                for i in range(65536):
                    free(self.core.programs[i].steps)
                free(self.core.programs)
            if self.core.watch != NULL:
                watch_free(self.core.watch)
            free(self.core)
        free(self.stages)
        if self.interims != NULL:
            sink_close(&self.interims.rows)
            free(self.interims.since)
            free(self.interims)

    cdef int _configure(self, settings) except -1:
        cdef Config* config = &self.core.config
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
        config.others = any(self.flow_kinds[COL_ZEEK_CONN_STATE:COL_WIRESHARK_INITIAL_RTT_NS + 1])
        self.core.clock = NEVER
        return 0

    cdef int _bound(self, settings) except -1:
        # Last, since what the process has by now is what it needs beside connections.
        cdef Core* core = self.core
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

    cdef int _open_intervals(self, settings) except -1:
        cdef Intervals* iv = &self.core.intervals
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
        wheel_init(&self.core.wheel, shift)
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

    cdef int _open_keys(self, settings, uint32_t most) except -1:
        cdef Intervals* iv = &self.core.intervals
        cdef ByKey* by
        cdef int table
        self.core.told = NEVER
        for table, name in enumerate(schema.BY):
            if name not in settings.by:
                continue
            self.core.keyed = True
            by = &self.core.by[table]
            by_init(by, most)
            by.interval_tallies = <uint32_t*>calloc(iv.interval_mask + 1, sizeof(uint32_t))
            by.slice_changes = <uint32_t*>calloc(iv.slice_mask + 1, sizeof(uint32_t))
            if by.interval_tallies == NULL or by.slice_changes == NULL or arena_reserve(&by.keys, 1) < 0:
                raise MemoryError("no memory for the interval table by key")
            key_of_others(by, table)
        return 0

    cdef int _list(self, services) except -1:
        cdef Listing* listing = &self.core.listing
        cdef bytes id
        cdef uint32_t i
        ids = sorted((_id_of_service(address, port), (address, port)) for address, port in services)
        if not ids:
            return 0
        listing.services = <Listed*>calloc(len(ids), sizeof(Listed))
        if listing.services == NULL:
            raise MemoryError("no memory for services")
        for i in range(<uint32_t>len(ids)):
            id = ids[i][0]
            memcpy(listing.services[i].id, <const uint8_t*>id, ID_BYTES)
        listing.count = <uint32_t>len(ids)
        self.listed = [service for _, service in ids]
        self.core.keyed = True
        return 0

    cdef int _open_rows(self, Pool pool=None) except -1:
        sink_open(&self.core.rows, self.flow_names, self.flow_kinds, BLOCK_ROWS + 8, True, pool)
        return 0

    cdef int _open_interval_rows(self) except -1:
        sink_open(&self.core.interval_rows, self.interval_names, self.interval_kinds, INTERVAL_BLOCK_ROWS, False)
        return 0

    def feed(self, PacketBatch batch not None):
        """Track a batch.

        Returns
        -------
        bool : True when the whole batch was tracked. False when finished rows must be taken first: call `take` until it
            returns None for both tables, then `feed` the same batch again; it goes on where it stopped.
        """
        cdef bint done
        cdef int got = RESERVED
        if self.core.programs != NULL:
            self._compile(&batch.c)
        self._enter()
        with nogil:
            done = self._track(&batch.c, &got)
        self.busy = False
        if got == NO_MEMORY:
            raise MemoryError(f"no memory for more than {self.core.table.count} live connections")
        return done

    cdef bint _track(self, const Batch* batch, int* got) noexcept nogil:
        if self.stages.at >= self.stages.count:
            got[0] = reserve(self.core)
            if got[0] != RESERVED:
                return False
            decode_batch(self.core, self.stages, batch)
            prefetch_first(self.core, self.stages)
        return track_batch(self.core, self.stages, batch)

    def work(self, Round round not None, int worker):
        """Track the share of a worker in a round, and let the clock reach the round's end. Returns like `feed`."""
        cdef Share* share = &round.shares[worker]
        cdef bint done
        cdef int got = RESERVED
        cdef uint32_t i
        if self.core.programs != NULL:
            for i in range(share.at, share.count):
                self._compile(&share.batches[i])
        self._enter()
        with nogil:
            done = self._work(round, share, &got) and (round.clock == NEVER or self._reach(round))
        self.busy = False
        if got == NO_MEMORY:
            raise MemoryError(f"no memory for more than {self.core.table.count} live connections")
        if done and worker == 0 and round.knows_drops:
            self.add_drops(round.drops)
        return done

    cdef bint _work(self, Round round, Share* share, int* got) noexcept nogil:
        if self.core.clock == NEVER and round.first_clock != NEVER:
            start_clock(self.core, round.first_clock)
        while share.at < share.count:
            if not self._track(&share.batches[share.at], got):
                return False
            share.at += 1
        return True

    cdef bint _reach(self, Round round) noexcept nogil:
        # The clock that all workers are told.
        if round.clock > self.core.clock:
            self.core.clock = round.clock
        return (sweep(self.core, self.core.clock - self.core.config.reorder)
                and (not round.steps or step_back(self.core, round.step_ns)))

    @property
    def headers_suffice(self):
        """Whether a packet cut after its TCP header gives the same rows."""
        return self.filter is None and not self.core.config.verify_checksums and not self.core.config.others

    def take_parts(self):
        """This tracker's parts of the intervals that have ended (`IntervalMerge.add`); empty bytes for none."""
        cdef bytes parts = (<char*>self.core.parts.room)[:self.core.parts.used]
        self.core.parts.used = 0
        return parts

    @property
    def interval(self):
        """The interval in hand, by its number since 1970: all before it have ended, and their parts were told.

        None before the first packet.
        """
        if self.core.told != NEVER:
            return self.core.told
        return None if self.core.clock == NEVER else floor_div(self.core.intervals.next_slice, SLICES)

    cdef int _compile(self, const Batch* batch) except -1:
        # Fetches the program of every link type that is new in the batch.
        cdef uint32_t i
        cdef Program* program
        cdef const uint8_t* start
        cdef bytes code
        for i in range(batch.count):
            program = &self.core.programs[batch.packets[i].link_type]
            # A link type that is not decoded has a name of its own among the skips, and libpcap knows few of them.
            if program.steps != NULL or first_layer(batch.packets[i].link_type) == LK_UNKNOWN:
                continue
            code = self.filter(batch.packets[i].link_type)
            start = code
            program.count = <uint32_t>(len(code) // sizeof(Instruction))
            program.steps = <Instruction*>malloc(len(code) + 1)
            if program.steps == NULL:
                raise MemoryError("no memory for a filter")
            memcpy(program.steps, start, len(code))
            if not filter_is_sound(program):
                free(program.steps)
                program.steps = NULL
                raise SynfinError("the filter's program cannot be run: it is too long, jumps too far or has no end")
        return 0

    cdef int _watch(self, selection) except -1:
        cdef Watch* watch = <Watch*>calloc(1, sizeof(Watch))
        cdef WatchedEnd* side
        cdef const uint8_t* address
        cdef bytes packed
        if watch == NULL:
            raise MemoryError("no memory for a selection")
        self.core.watch = watch
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

    def selected(self):
        """Of the records of the selection that have ended: how many, and the places of their packets.

        Returns
        -------
        (int, bytes) : records; 64-bit integers in native order, ascending: which packets of those that were fed, from 1.
        """
        cdef Watch* w = self.core.watch
        cdef uint64_t i, count = 0
        cdef int64_t records = 0
        if w == NULL:
            raise SynfinError("no records were asked for")
        for i in range(1, w.birth_count):
            records += w.births[i].chosen and w.births[i].to == i
        for i in range(w.packet_count):
            if watch_wants(w, i):
                w.packets[count] = w.packets[i]
                count += 1
        w.packet_count = 0       # told once
        return records, (<char*>w.packets)[:count * sizeof(int64_t)] if count else b""

    def advance(self, int64_t clock_ns):
        """Let capture time reach `clock_ns` without a packet (an idle live link). Returns like `feed`."""
        cdef bint done = True
        self._enter()
        with nogil:
            if self.core.clock != NEVER and clock_ns > self.core.clock:
                self.core.clock = clock_ns
            if self.core.clock != NEVER:
                done = sweep(self.core, self.core.clock - self.core.config.reorder)
        self.busy = False
        return done

    def add_drops(self, int64_t count):
        """Count packets that the capture lost; from now on the interval table says how many."""
        self.core.intervals.knows_drops = True
        if count and self.core.clock != NEVER:
            interval_add(&self.core.intervals, self.core.clock, ICOL_CAPTURE_DROPS, count)

    def add_outside(self, int64_t count):
        """Count packets that the source read and left out, because they lie outside the window of time."""
        self.core.stats.skips[<int>VD_OUTSIDE_WINDOW] += count

    def finish(self):
        """End the input: open records are written as they stand. Returns like `feed`; call it until it returns True."""
        cdef bint done
        self._enter()
        with nogil:
            done = self.core.clock == NEVER or self._finish()
        self.busy = False
        return done and (self.merge is None or self._settle())

    cdef bint _finish(self) noexcept nogil:
        cdef Core* core = self.core
        if self.finishing == 0:
            if not sweep(core, core.clock):
                return False
            self.finishing = 1
        if not self.finished:
            if not finish_records(core, &self.finishing):
                return False
            if not cut_intervals(core):
                return False
            self.finished = True
        return True

    def interim(self, int64_t older_than_ns):
        """Write interim rows: one for each live record, closed and reset ones left out, that has lasted at least so long
        (capture time, ns) and of which no interim row was written for at least so long. `take` gives them as the table
        ``"interim"``.

        Returns
        -------
        bool : False when the pass over the records goes on with the next call: take what `take` gives, and call it again
            at once or after further batches. True when it is over, or when none is due: a pass begins no sooner than a
            second of capture time (or `older_than_ns`, where that is less) after the one before, so that it may be called
            after each batch.

        Notes
        -----
        Nothing else changes. Records whose deadline has passed end first, as at the next packet. A row is that of a run
        whose input ends here, but for `record`, `end_reason`, and a SYN that is held beside the record: it is not in the
        row, since it may go to another record yet.
        """
        cdef bint done
        if older_than_ns < 0:
            raise SynfinError("a record's age is not negative")
        if self.core.clock == NEVER:
            return True
        if self.interims.rows.memory == NULL:
            sink_open(&self.interims.rows, self.flow_names, self.flow_kinds, INTERIM_BLOCK_ROWS, True)
        if interim_reserve(self.core, self.interims) < 0:
            raise MemoryError("no memory for interim rows")
        self._enter()
        with nogil:
            done = (sweep(self.core, self.core.clock - self.core.config.reorder)
                    and interim_step(self.core, self.interims, older_than_ns))
        self.busy = False
        return done

    def names(self, list files not None, list interfaces not None):
        """The texts of `first_file` and `interface` by number, as the source knows them. Call it before `take`."""
        self.files = files
        self.interfaces = interfaces

    def take(self, str table not None, bint force=False):
        """A block of finished rows of ``"flows"``, ``"intervals"`` or ``"interim"``, or of a table by key that the
        settings ask for; or None. Without `force`, only a full block is given.
        """
        cdef Sink* sink = &self.core.interval_rows
        cdef dict texts = {"first_file": self.files, "interface": self.interfaces}
        if self.merge is not None and table not in ("flows", "interim"):
            self._settle()
            return self.merge.take(table, force)
        if table == "flows":
            sink = &self.core.rows
        elif table == "interim":
            sink = &self.interims.rows
        if self.finished:
            self.pool.close()
        if sink.rows == 0 or not (force or rows_full(sink)):
            return None
        if table == "flows":
            block = sink_take(sink, self.flow_names, self.flow_kinds, texts, self.pool)
            self._open_rows(None if self.finished else self.pool)
        elif table == "interim":
            block = sink_take(sink, self.flow_names, self.flow_kinds, texts)
        else:
            block = sink_take(sink, self.interval_names, self.interval_kinds, {})
            self._open_interval_rows()
        return block

    cdef bint _settle(self) except -1:
        # Its own parts become rows. False when finished rows must be taken first. Before: Tracker.merge.
        self.merge.add(0, self.take_parts())
        if self.interval is not None:
            self.merge.reach(0, self.interval)
        if self.finished:
            self.merge.end(0)
        return self.merge.settle()

    def snapshot(self, PacketBatch batch not None, uint32_t at):
        """The live record of the two ends between which packet `at` of a batch passes, as it stands now.

        None where there is no such record, or the packet is no segment. Otherwise a dict: under ``"row"`` the record's
        interim row by column (instants as int nanoseconds), beside it facts of the tracker that no column shows (see
        `snapshot.live_record`). Call `names` before.
        """
        if at >= batch.c.count:
            raise IndexError(f"the batch holds {batch.c.count} packets")
        self._enter()
        try:
            return live_record(self.core, &batch.c.packets[at], self.files, self.interfaces)
        finally:
            self.busy = False

    def fate(self):
        """What became of the last packet that was fed.

        Returns
        -------
        (str or None, int or None) : the name of its skip, None for a segment of a record (a copy that counts in a record
            is called `capture_duplicate` all the same); and where capture duplicates are looked for, a number that it
            shares with what it is a copy of, and with nothing else of the run.
        """
        cdef int verdict
        if self.stages.count == 0:
            raise SynfinError("no packet was fed")
        verdict = self.stages.briefs[self.stages.count - 1].verdict
        judged = self.core.config.duplicates != DUP_KEEP and verdict in (VD_SEGMENT, VD_CAPTURE_DUPLICATE)
        name = "link_type" if verdict == VD_LINK_TYPE else schema.SKIPS[verdict][0]
        return None if verdict == VD_SEGMENT else name, self.core.firsts.last if judged else None

    cdef int _enter(self) except -1:
        if self.busy:
            raise SynfinError("this tracker is in use by another thread")
        if self.core.keyed and reserve_keys(self.core, BATCH_PACKETS) < 0:
            raise MemoryError("no memory for the interval table by key")
        self.busy = True
        return 0

    def memory(self):
        """Bytes held for connections, by part."""
        cdef Core* core = self.core
        names = (
            "flows", "facts", "ages", "others", "kept_keys", "address_pairs", "extras", "wides", "troubles", "copies",
            "copy_pairs", "helds", "vlans", "tunnels", "held_others",
        )
        parts = {name: arena_bytes(arena_by_number(core, i)) for i, name in enumerate(names)}
        parts["index"] = (<uint64_t>core.table.mask + 1) * sizeof(Slot)
        parts["firsts"] = firsts_bytes(&core.firsts)
        for i, name in enumerate(schema.KEYS):
            parts[name] = by_bytes(&core.by[i])
        parts["interim"] = self.interims.room * <uint64_t>sizeof(int64_t)
        return parts

    def gauges(self):
        """The interval table's gauges by name, as they stand after the last packet and `advance`.

        Unlike those of `stats`, which are of the end of the last slice that is settled, they hold what has come since
        then. Deadlines are met up to the input clock less the reorder allowance.
        """
        cdef Intervals* iv = &self.core.intervals
        cdef int64_t now[GAUGES]
        cdef uint32_t i
        memcpy(now, iv.gauges, sizeof(now))
        for i in range(iv.slice_mask + 1):       # closed ones hold no change
            add_changes(&iv.slices[i], now)
        return {name: now[i] for i, name in enumerate(GAUGE_NAMES)}

    def services(self):
        """Of each listed service (address, port) its gauges, as of `gauges`, and counts, as of the interval table.

        None where none is listed.
        """
        cdef const Listed* listed
        if self.listed is None:
            return None
        told = {}
        for i, service in enumerate(self.listed):
            listed = &self.core.listing.services[<uint32_t>i]
            told[service] = {name: listed.gauges[j] for j, name in enumerate(GAUGE_NAMES)}
            told[service] |= {name: listed.counts[j] for j, name in enumerate(COUNT_NAMES) if name != "capture_drops"}
        return told

    def histograms(self):
        """Round trips of the whole run so far: `rtt_server`, `rtt_client`, `rtt_handshake`.

        Those that the interval table's quantiles come from (`clean` and `matched`); the handshake's where both others
        are. Each is a dict: `count`; `sum_ns`, exact; `buckets`, by the highest value (ns) of a bucket its samples,
        ascending, empty ones left out. Buckets are those of the interval table. A tracker keeps 30 KB for each.
        """
        cdef int i
        names = ("rtt_server", "rtt_client", "rtt_handshake")
        return {name: histogram_of(&self.core.intervals.run_rtt[i]) for i, name in enumerate(names)}

    def stats(self):
        """What the run has come to, as plain numbers (see the summary)."""
        cdef Core* core = self.core
        cdef Stats* stats = &core.stats
        cdef Intervals* iv = &core.intervals
        cdef int i
        known = core.clock != NEVER
        counts = {name: iv.run_counts[i] for i, name in enumerate(COUNT_NAMES)}
        return {
            "packets": stats.packets + stats.skips[<int>VD_OUTSIDE_WINDOW],
            "packets_in_records": stats.packets_in_records,
            "records": stats.records,
            "live": core.table.count,
            "skips": skips_of(stats, schema.SKIPS),
            "ip_bytes": stats.ip_bytes,
            "first_time_ns": stats.first_time if stats.packets else None,
            "last_time_ns": stats.last_time if stats.packets else None,
            "clock_ns": core.clock if known else None,
            "clock_steps": stats.steps,
            "suspects": stats.suspects,
            "icmp": {"errors": stats.icmp_errors, "rejected": stats.icmp_rejected},
            "handshakes": _counted("handshake", stats.handshakes),
            "closes": _counted("close", stats.closes),
            "closers": _counted("side", stats.closers),
            "end_reasons": _counted("end_reason", stats.end_reasons),
            "evicted": {name: stats.evicted[i] for i, name in enumerate(RANK_NAMES) if stats.evicted[i]},
            "cap": core.cap if core.capped else None,
            "counts": counts,
            "syn_resends": counts["syn_resends"],
            "retransmitted_segments": counts["retransmitted_segments"],
            "gauges": {name: iv.gauges[i] for i, name in enumerate(GAUGE_NAMES)},
            **peaks_of(iv),
            "rtt": {side: quantiles_of(&iv.run_rtt[i].histogram) for i, side in enumerate(("server", "client"))},
            "memory": self.memory(),
        }


cdef bytes _id_of_service(str address, int port):
    # As in a key's id (by.pxd).
    packed = ip_address(address).packed
    return bytes((BY_SERVICE + 1, 4 if len(packed) == 4 else 6)) + packed.ljust(16, b"\0") + port.to_bytes(2, "big")

cdef dict _counted(str enum, int64_t* counts):
    return {name: counts[code] for code, name in enumerate(schema.ENUMS[enum]) if counts[code]}
