"""The tracker: batches of packets in, blocks of finished rows out. The only place where the packet path drops the GIL."""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from synfin._core.account cimport gauges_of, histograms_of, listed_of, memory_of, stats_of
from synfin._core.batch cimport PacketBatch
from synfin._core.block cimport BLOCK_ROWS, INTERVAL_BLOCK_ROWS, Pool, asked_columns, sink_close, sink_open, sink_take
from synfin._core.configure cimport bound, configure, free_core, list_services, watch_selection
from synfin._core.core cimport *
from synfin._core.duplicates cimport DUP_KEEP
from synfin._core.filter cimport Instruction, Program, filter_is_sound
from synfin._core.interim cimport Interim, interim_reserve, interim_step
from synfin._core.linktype cimport LK_UNKNOWN, first_layer
from synfin._core.memory cimport NO_MEMORY, RESERVED, reserve, reserve_keys
from synfin._core.route cimport Round, Share
from synfin._core.snapshot cimport live_record
from synfin._core.stages cimport Stages, decode_batch, prefetch_first, track_batch
from synfin._core.sweep cimport cut_intervals, finish_records, rows_full, start_clock, step_back, sweep
from synfin._core.watch cimport Watch, watch_wants

from synfin import schema
from synfin._core.merging import IntervalMerge
from synfin.errors import SynfinError

INTERIM_BLOCK_ROWS = 4_096
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
    cdef object listed       # services in the order of Core.listing; None where none is listed
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
        configure(self.core, settings, self.flow_kinds, most_keys // several)
        self.listed = list_services(self.core, services)
        self.pool = Pool()
        self._open_rows()
        self._open_interval_rows()
        self.filter = filter
        if filter is not None:
            self.core.programs = <Program*>calloc(65536, sizeof(Program))
            if self.core.programs == NULL:
                raise MemoryError("no memory for a filter")
        if selection is not None:
            watch_selection(self.core, selection)
        bound(self.core, settings)
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
        if self.core != NULL:
            free_core(self.core)
        free(self.stages)
        if self.interims != NULL:
            sink_close(&self.interims.rows)
            free(self.interims.since)
            free(self.interims)

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
        return {**memory_of(self.core), "interim": self.interims.room * <uint64_t>sizeof(int64_t)}

    def gauges(self):
        """The interval table's gauges by name, as they stand after the last packet and `advance`.

        Unlike those of `stats`, which are of the end of the last slice that is settled, they hold what has come since
        then. Deadlines are met up to the input clock less the reorder allowance.
        """
        return gauges_of(self.core)

    def services(self):
        """Of each listed service (address, port) its gauges, as of `gauges`, and counts, as of the interval table.

        None where none is listed.
        """
        return None if self.listed is None else listed_of(self.core, self.listed)

    def histograms(self):
        """Round trips of the whole run so far: `rtt_server`, `rtt_client`, `rtt_handshake`.

        Those that the interval table's quantiles come from (`clean` and `matched`); the handshake's where both others
        are. Each is a dict: `count`; `sum_ns`, exact; `buckets`, by the highest value (ns) of a bucket its samples,
        ascending, empty ones left out. Buckets are those of the interval table. A tracker keeps 30 KB for each.
        """
        return histograms_of(self.core)

    def stats(self):
        """What the run has come to, as plain numbers (see the summary)."""
        return {**stats_of(self.core), "memory": self.memory()}
