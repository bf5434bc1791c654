"""Rows of the interval table, and of it by key, of trackers' parts of intervals: as one tracker would write them."""

cimport cython
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

from synfin._core.account cimport new_histogram, peaks_of, quantiles_of
from synfin._core.block cimport INTERVAL_BLOCK_ROWS, asked_columns, sink_close, sink_open, sink_take
from synfin._core.bytes cimport be16
from synfin._core.intervals cimport *
from synfin._core.keyed cimport BY_SERVICE, KEY_TABLES
from synfin._core.parts cimport ID_ADDRESS, ID_BYTES, ID_PORT, ID_VERSION, Bucket, Part
from synfin._core.ranking cimport (
    Ranked, Ranking, add_bucket, add_part, begin_key, bucket_quantile, forget_keys, order_buckets, order_keys, rank_key,
    ranking_free,
)
from synfin._core.sink cimport Sink, address_code, put_int
from synfin._core.sweep cimport put_interval_row, put_quantiles, rows_full

from synfin import schema
from synfin.errors import SynfinError


# What one worker has told of the round in hand.
cdef struct Told:
    const char* at           # the next part
    const char* end
    bint ended
    int64_t reached          # with clocks of their own: no part of an earlier interval comes any more
    int64_t turn             # to which it gave parts last,
    int64_t epoch            # ... and their epoch


@cython.final
cdef class IntervalMerge:
    """Makes rows of the parts that workers tell, round by round.

    At the end of a round all workers have reached the same clock: the intervals that ended within it did so for all of
    them. Within a round each worker tells its parts in order, so that an interval is whole when every worker has told a
    later one or has ended the round.

    Live workers have clocks of their own and no rounds: there an interval is whole when every worker has told a later one
    or has reached (`reach`) what comes after it.

    A table by key has a row for each of the first `top` keys of an interval, in the order of their rank, and after them
    one for all others. Held for that are as many keys, and no others: workers tell an interval's keys in order, and what
    is added up of a key is ranked at once.

    Parameters
    ----------
    workers : how many.
    interval_ns : length of an interval.
    columns : names of the columns of the interval table to write; None for all.
    knows_duplicates : rows say how many capture duplicates there were.
    own_clocks : there are no rounds. Where one worker's clock steps back and those of others do not, its intervals that
        come again are rows of their own.
    top : keys of an interval that have rows of their own in a table by key.
    """

    cdef Intervals total         # run_peak, run_rtt
    cdef Told* told
    cdef list parts              # of each worker: what `told` points into
    cdef list names, kinds       # by table, in the order of the first byte of an id
    cdef Sink rows[1 + KEY_TABLES]
    cdef int workers
    cdef bint knows_duplicates, own_clocks
    # The turn: the interval and table of which parts are being added up.
    cdef int64_t turn            # how many there were
    cdef bint begun
    cdef int64_t number, epoch
    cdef uint8_t table
    cdef Ranking ranking
    cdef bint ordered            # rows are being written,
    cdef uint32_t written        # ... so many were

    def __cinit__(self, int workers, int64_t interval_ns, columns, bint knows_duplicates, bint own_clocks=False,
                  uint32_t top=1):
        cdef int i
        self.workers = workers
        self.told = <Told*>calloc(workers, sizeof(Told))
        if self.told == NULL:
            raise MemoryError("no memory for the interval table")
        self.parts = [b""] * workers
        for i in range(workers):
            self.told[i].reached = INT64_MIN
        self.total.interval_ns = interval_ns
        self.total.slice_ns = interval_ns // SLICES
        self.knows_duplicates = knows_duplicates
        self.own_clocks = own_clocks
        self.ranking.top = top
        for i in range(2):
            self.total.run_rtt[i].histogram.buckets = new_histogram()
            self.ranking.others_rtt[i].buckets = new_histogram()
        # The key's columns come last here, so that the others have the interval table's numbers.
        tables = [asked_columns(schema.INTERVALS, columns)]
        tables += [asked_columns((*schema.INTERVALS, *key), None) for key in schema.KEYS.values()]
        self.names = [names for names, _ in tables]
        self.kinds = [kinds for _, kinds in tables]
        for i in range(1 + KEY_TABLES):
            self._open(i)

    def __dealloc__(self):
        free(self.told)
        for i in range(2):
            free(self.total.run_rtt[<int>i].histogram.buckets)
        ranking_free(&self.ranking)
        for i in range(1 + KEY_TABLES):
            sink_close(&self.rows[<int>i])

    cdef int _open(self, int table) except -1:
        sink_open(&self.rows[table], self.names[table], self.kinds[table], INTERVAL_BLOCK_ROWS, table > 0)
        return 0

    def waits_for(self):
        """The first worker without whom nothing more can be settled in this round; None when all have ended it."""
        cdef int i
        for i in range(self.workers):
            if not self.told[i].ended and self.told[i].at == self.told[i].end:
                return i
        return None

    def add(self, int worker, bytes parts not None):
        """Take the next parts of a worker (`Tracker.take_parts`). With rounds, its earlier ones must be settled."""
        cdef Told* told = &self.told[worker]
        if told.at != told.end:
            if not self.own_clocks:
                raise SynfinError("parts of intervals came before their turn")
            parts = told.at[:told.end - told.at] + parts
        self.parts[worker] = parts
        told.at = parts
        told.end = told.at + len(parts)

    def reach(self, int worker, int64_t number):
        """The worker tells no more parts of intervals before this one (`Tracker.interval`), and has told them all."""
        self.told[worker].reached = number

    def end(self, int worker):
        """The worker has ended the round."""
        self.told[worker].ended = True

    def next_round(self, bint knows_drops):
        """All workers have ended the round, and all is settled. `knows_drops`: later rows say what was lost."""
        cdef int i
        for i in range(self.workers):
            self.told[i].ended = False
        self.total.knows_drops |= knows_drops

    def settle(self):
        """Write the rows of which all is known. False when finished rows must be taken first."""
        cdef bint done
        with nogil:
            done = self._settle()
        if self.ranking.no_memory:
            raise MemoryError("no memory for the interval table")
        return done

    cdef bint _settle(self) noexcept nogil:
        cdef const Part* first
        cdef bint first_belongs, belongs
        cdef const Part* part
        cdef int64_t reached
        cdef int i
        while not self.ranking.no_memory:
            first = NULL
            first_belongs = False
            reached = INT64_MAX
            for i in range(self.workers):
                if self.told[i].at != self.told[i].end:
                    part = <const Part*>self.told[i].at
                    belongs = self.begun and self._belongs(i)
                    if first == NULL or belongs > first_belongs or (belongs == first_belongs
                                                                    and self._is_earlier(part, first)):
                        first = part
                        first_belongs = belongs
                elif self.told[i].ended:
                    continue
                elif not self.own_clocks:
                    return True
                elif self.told[i].reached < reached:
                    reached = self.told[i].reached
            if self.begun and not first_belongs:
                if self.number >= reached:
                    return True
                if not self._write():
                    return False
            elif first == NULL or first.number >= reached:
                return True
            else:
                self._add_up(first)
        return True

    cdef bint _is_earlier(self, const Part* one, const Part* other) noexcept nogil:
        if one.epoch != other.epoch and not self.own_clocks:
            return one.epoch < other.epoch
        if one.number != other.number:
            return one.number < other.number
        return memcmp(one.id, other.id, ID_BYTES) < 0

    cdef bint _belongs(self, int worker) noexcept nogil:
        # Whether the next part of a worker is of the turn. A worker's clock that stepped back begins another one.
        cdef const Told* told = &self.told[worker]
        cdef const Part* part = <const Part*>told.at
        if part.number != self.number or part.id[0] != self.table:
            return False
        if not self.own_clocks:
            return part.epoch == self.epoch
        return told.turn != self.turn or told.epoch == part.epoch

    cdef void _add_up(self, const Part* first) noexcept nogil:
        # One key, of all workers.
        cdef const Part* part
        cdef Told* told
        cdef int i
        if not self.begun:
            self.begun = True
            self.turn += 1
            self.number = first.number
            self.epoch = first.epoch
            self.table = first.id[0]
        begin_key(&self.ranking, first)
        for i in range(self.workers):
            told = &self.told[i]
            part = <const Part*>told.at
            if told.at != told.end and memcmp(part.id, self.ranking.hand.part.id, ID_BYTES) == 0 and self._belongs(i):
                told.turn = self.turn
                told.epoch = part.epoch
                told.at += sizeof(Part) + (<uint64_t>part.buckets[0] + part.buckets[1]) * sizeof(Bucket)
                add_part(&self.ranking, part)
        if self.table == 0 and not self.ranking.no_memory:
            self._note_run(&self.ranking.hand)
        rank_key(&self.ranking)

    cdef void _note_run(self, const Ranked* whole) noexcept nogil:
        cdef Intervals* total = &self.total
        cdef uint32_t k
        cdef int i, j
        for i in range(PEAKS):
            for j in range(SLICES):
                if whole.part.course[i][j] > total.run_peak[i]:
                    total.run_peak[i] = whole.part.course[i][j]
                    total.run_peak_at[i] = (whole.part.number * SLICES + j) * total.slice_ns
        for k in range(whole.count):
            i = whole.buckets[k].place >> 31
            add_bucket(&total.run_rtt[i].histogram, &whole.buckets[k], whole.part.rtt_max[i])

    # ------------------------------------------------------------------ rows

    cdef bint _write(self) noexcept nogil:
        # The rows of the turn, of which all is known. False when finished rows must be taken first.
        cdef Ranking* ranking = &self.ranking
        cdef Sink* rows = &self.rows[self.table]
        if not self.ordered:
            order_keys(ranking)
            self.ordered = True
        while self.written < ranking.count:
            if rows_full(rows):
                return False
            self._write_ranked(&ranking.ranked[ranking.order[self.written]])
            self.written += 1
        if ranking.has_others:
            if rows_full(rows):
                return False
            self._write_others(rows)
        forget_keys(ranking)
        self.begun = self.ordered = False
        self.written = 0
        return True

    cdef void _write_others(self, Sink* rows) noexcept nogil:
        cdef const Part* part = &self.ranking.others
        self._write_figures(part)
        put_quantiles(rows, ICOL_RTT_SERVER_P50_NS, &self.ranking.others_rtt[0])
        put_quantiles(rows, ICOL_RTT_CLIENT_P50_NS, &self.ranking.others_rtt[1])
        put_int(rows, ICOL_COUNT, address_code(&rows.addresses, 0, part.id + ID_ADDRESS))
        rows.rows += 1

    cdef void _write_figures(self, const Part* part) noexcept nogil:
        # Drops are nobody's: only the interval table tells them.
        cdef bint knows_drops = self.table == 0 and (part.knows_drops or self.total.knows_drops)
        put_interval_row(&self.rows[self.table], self.total.interval_ns, part, knows_drops, self.knows_duplicates)

    cdef void _write_ranked(self, Ranked* ranked) noexcept nogil:
        cdef Sink* rows = &self.rows[self.table]
        cdef const uint8_t* id = ranked.part.id
        cdef const Bucket* bucket = ranked.buckets
        cdef uint64_t samples
        cdef int side, column = ICOL_RTT_SERVER_P50_NS
        cdef uint32_t i
        self._write_figures(&ranked.part)
        order_buckets(ranked)
        for side in range(2):
            samples = 0
            for i in range(ranked.part.buckets[side]):
                samples += bucket[i].samples
            if samples:
                put_int(rows, column, bucket_quantile(bucket, samples, 50))
                put_int(rows, column + 1, bucket_quantile(bucket, samples, 90))
                put_int(rows, column + 2, bucket_quantile(bucket, samples, 99))
                put_int(rows, column + 3, ranked.part.rtt_max[side])
            bucket += ranked.part.buckets[side]
            column = ICOL_RTT_CLIENT_P50_NS
        if self.table:
            put_int(rows, ICOL_COUNT, address_code(&rows.addresses, id[ID_VERSION], id + ID_ADDRESS))
        if self.table == 1 + BY_SERVICE:
            put_int(rows, ICOL_COUNT + 1, be16(id + ID_PORT))
        rows.rows += 1

    def take(self, str table not None="intervals", bint force=False):
        """A block of finished rows of ``"intervals"``, ``"services"`` or ``"clients"``, or None.

        Without `force`, only a full block is given.
        """
        cdef int i = ("intervals", *schema.KEYS).index(table)
        if self.rows[i].rows == 0 or not (force or rows_full(&self.rows[i])):
            return None
        block = sink_take(&self.rows[i], self.names[i], self.kinds[i], {})
        self._open(i)
        return block

    def stats(self):
        """What the rows of the whole run come to: the part of `Tracker.stats` that is no sum over trackers."""
        cdef int i
        return {
            **peaks_of(&self.total),
            "rtt": {
                side: quantiles_of(&self.total.run_rtt[i].histogram) for i, side in enumerate(("server", "client"))
            },
        }
