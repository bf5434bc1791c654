"""The interval table of several workers: their parts of intervals become rows, as one tracker would write them."""

cimport cython
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from synfin._core.account cimport new_histogram, peaks_of, quantiles_of
from synfin._core.block cimport INTERVAL_BLOCK_ROWS, asked_columns, sink_close, sink_open, sink_take
from synfin._core.intervals cimport *
from synfin._core.parts cimport Bucket, Part
from synfin._core.sink cimport Sink
from synfin._core.sweep cimport put_interval_row, rows_full

from synfin import schema
from synfin.errors import SynfinError


# What one worker has told of the round in hand.
cdef struct Told:
    const char* at           # the next part
    const char* end
    bint ended
    int64_t reached          # with clocks of their own: no part of an earlier interval comes any more


@cython.final
cdef class IntervalMerge:
    """Makes rows of the parts that workers tell, round by round.

    At the end of a round all workers have reached the same clock: the intervals that ended within it did so for all of
    them. Within a round each worker tells its parts in order, so that an interval is whole when every worker has told a
    later one or has ended the round.

    Live workers have clocks of their own and no rounds: there an interval is whole when every worker has told a later one
    or has reached (`reach`) what comes after it.

    Parameters
    ----------
    workers : how many.
    interval_ns : length of an interval.
    columns : names of the columns to write; None for all.
    knows_duplicates : rows say how many capture duplicates there were.
    own_clocks : there are no rounds. Where one worker's clock steps back and those of others do not, its intervals that
        come again are rows of their own.
    """

    cdef Intervals total         # run_peak, run_rtt, and the row in hand
    cdef Interval interval
    cdef Told* told
    cdef list parts              # of each worker: what `told` points into
    cdef list names, kinds
    cdef Sink rows
    cdef int workers
    cdef bint knows_duplicates, own_clocks

    def __cinit__(self, int workers, int64_t interval_ns, columns, bint knows_duplicates, bint own_clocks=False):
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
        for i in range(2):
            self.total.run_rtt[i].histogram.buckets = new_histogram()
            self.interval.rtt[i].buckets = new_histogram()
        self.names, self.kinds = asked_columns(schema.INTERVALS, columns)
        self._open()

    def __dealloc__(self):
        cdef int i
        free(self.told)
        for i in range(2):
            free(self.total.run_rtt[i].histogram.buckets)
            free(self.interval.rtt[i].buckets)
        sink_close(&self.rows)

    cdef int _open(self) except -1:
        sink_open(&self.rows, self.names, self.kinds, INTERVAL_BLOCK_ROWS, False)
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
        return done

    cdef bint _settle(self) noexcept nogil:
        cdef const Part* first
        cdef int64_t reached
        cdef int i
        while True:
            first = NULL
            reached = INT64_MAX
            for i in range(self.workers):
                if self.told[i].at != self.told[i].end:
                    first = self._earlier(first, <const Part*>self.told[i].at)
                elif self.told[i].ended:
                    continue
                elif not self.own_clocks:
                    return True
                elif self.told[i].reached < reached:
                    reached = self.told[i].reached
            if first == NULL or first.number >= reached:
                return True
            if rows_full(&self.rows):
                return False
            self._write(first)

    cdef const Part* _earlier(self, const Part* one, const Part* other) noexcept nogil:
        if one == NULL or (other.epoch < one.epoch and not self.own_clocks):
            return other
        return other if other.number < one.number and (other.epoch == one.epoch or self.own_clocks) else one

    cdef void _write(self, const Part* first) noexcept nogil:
        cdef const Part* part
        cdef int64_t number = first.number, epoch = first.epoch
        cdef bint complete = True
        cdef Intervals* total = &self.total
        cdef int i, j
        memset(total.gauges, 0, sizeof(total.gauges))
        memset(total.course, 0, sizeof(total.course))
        memset(self.interval.counts, 0, sizeof(self.interval.counts))
        for i in range(2):
            if self.interval.rtt[i].samples:
                memset(self.interval.rtt[i].buckets, 0, RTT_BUCKETS * sizeof(uint64_t))
                self.interval.rtt[i].samples = 0
        for i in range(self.workers):
            part = <const Part*>self.told[i].at
            if (self.told[i].at != self.told[i].end and part.number == number
                    and (part.epoch == epoch or self.own_clocks)):
                self._add_part(part)
                complete &= part.complete
                self.told[i].at += sizeof(Part) + (part.buckets[0] + part.buckets[1]) * sizeof(Bucket)
        for i in range(PEAKS):
            for j in range(SLICES):
                if total.course[i][j] > total.run_peak[i]:
                    total.run_peak[i] = total.course[i][j]
                    total.run_peak_at[i] = (number * SLICES + j) * total.slice_ns
        put_interval_row(&self.rows, total, number, complete, &self.interval, self.knows_duplicates)

    cdef void _add_part(self, const Part* part) noexcept nogil:
        cdef const Bucket* bucket = <const Bucket*>(part + 1)
        cdef int i, j
        cdef uint32_t _k
        for i in range(GAUGES):
            self.total.gauges[i] += part.gauges[i]
        for i in range(PEAKS):
            for j in range(SLICES):
                self.total.course[i][j] += part.course[i][j]
        for i in range(COUNTS):
            self.interval.counts[i] += part.counts[i]
        for i in range(2):
            for _k in range(part.buckets[i]):
                _add_bucket(&self.interval.rtt[i], bucket, part.rtt_max[i])
                _add_bucket(&self.total.run_rtt[i].histogram, bucket, part.rtt_max[i])
                bucket += 1

    def take(self, bint force=False):
        """A block of finished rows, or None. Without `force`, only a full block is given."""
        if self.rows.rows == 0 or not (force or rows_full(&self.rows)):
            return None
        block = sink_take(&self.rows, self.names, self.kinds, {})
        self._open()
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


cdef inline void _add_bucket(RttHistogram* h, const Bucket* bucket, int64_t most) noexcept nogil:
    h.max = most if h.samples == 0 or most > h.max else h.max
    h.buckets[bucket.place] += bucket.samples
    h.samples += bucket.samples
