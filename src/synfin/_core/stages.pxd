# A batch on its way: every packet is decoded and hashed, what it will touch is prefetched, and then one after another is
# tracked.
from libc.stdint cimport int8_t, int64_t, uint32_t, uint64_t

from synfin._core.ages cimport age_of
from synfin._core.core cimport *
from synfin._core.decode cimport decode
from synfin._core.duplicates cimport (
    DUP_COUNT, DUP_KEEP, fingerprint, prefetch_oldest, prefetch_slot, take_duplicate,
)
from synfin._core.filter cimport Program, filter_accepts
from synfin._core.key cimport Key, key_of
from synfin._core.quote cimport track_quote
from synfin._core.segment cimport track_copy, track_segment
from synfin._core.sweep cimport rows_full, start_clock, step_back, sweep
from synfin._core.watch cimport watch_packet

cdef extern from "core.h" nogil:
    void prefetch_read(const void* p)
    void prefetch_write(const void* p)

# What a batch is on its way through the stages.
cdef struct Stages:
    uint32_t count
    uint32_t at              # the packet in hand, where a full sink stopped the last call
    bint stepping            # ... after it was tracked, before the clock stepped back
    int8_t verdicts[BATCH_PACKETS]
    uint32_t flows[BATCH_PACKETS]    # the record that the index named, 0: none
    Segment segments[BATCH_PACKETS]
    Tunnel tunnels[BATCH_PACKETS]    # what segments point to
    Key keys[BATCH_PACKETS]
    uint64_t fingerprints[BATCH_PACKETS]     # of segments, unless duplicates are kept

# ------------------------------------------------------------------------------------------------ stages

cdef inline bint is_quote(const Stages* stages, uint32_t i) noexcept nogil:
    return stages.verdicts[i] == VD_ICMP_ERROR and stages.segments[i].quoted

cdef inline bint is_filtered(const Core* core, const PacketRef* packet) noexcept nogil:
    cdef const Program* program = &core.programs[packet.link_type]
    return program.steps != NULL and not filter_accepts(program, packet)

# Decodes a batch and starts loading the index slots that it will look at.
cdef inline void decode_batch(Core* core, Stages* stages, const Batch* batch) noexcept nogil:
    cdef uint32_t i
    stages.count = batch.count
    stages.at = 0
    stages.stepping = False
    for i in range(batch.count):
        if core.programs != NULL and is_filtered(core, &batch.packets[i]):
            stages.verdicts[i] = VD_FILTERED
            continue
        stages.verdicts[i] = <int8_t>decode(
            &batch.packets[i], &stages.segments[i], &stages.tunnels[i], core.config.verify_checksums
        )
        if stages.verdicts[i] == VD_SEGMENT or is_quote(stages, i):
            key_of(
                &stages.segments[i], core.config.key_vlan, core.config.key_tunnel, core.config.seed, &stages.keys[i]
            )
            prefetch_read(&core.table.slots[stages.keys[i].hash & core.table.mask])
            if core.config.duplicates != DUP_KEEP and stages.verdicts[i] == VD_SEGMENT:
                stages.fingerprints[i] = fingerprint(&stages.segments[i], core.config.seed)
                prefetch_slot(&core.firsts, stages.fingerprints[i])
    if core.config.duplicates != DUP_KEEP and batch.count:
        prefetch_oldest(&core.firsts, batch.packets[batch.count - 1].clock_ns, batch.count)

# Starts loading the records that the slots name. A hint only: the record may end or begin before its packet's turn.
cdef inline void prefetch_flows(Core* core, Stages* stages) noexcept nogil:
    cdef uint32_t i, at, hashed
    cdef Flow* flow
    for i in range(stages.count):
        stages.flows[i] = 0
        if stages.verdicts[i] != VD_SEGMENT:
            continue
        hashed = stages.keys[i].hash
        at = hashed & core.table.mask
        while core.table.slots[at].flow and core.table.slots[at].hash != hashed:
            at = (at + 1) & core.table.mask
        stages.flows[i] = core.table.slots[at].flow
        if stages.flows[i]:
            flow = flow_of(core, stages.flows[i])
            prefetch_write(flow)
            prefetch_write(<char*>flow + 64)

# Starts loading the facts that packets of open connections need: the RTT sums, where a segment may begin or complete a
# sample; and what a SYN, FIN or RST will write.
cdef inline void prefetch_facts(Core* core, const Stages* stages) noexcept nogil:
    cdef uint32_t i, at
    cdef int peer
    cdef char* facts
    cdef const Flow* flow
    for i in range(stages.count):
        if stages.flows[i] == 0:
            continue
        flow = flow_of(core, stages.flows[i])
        peer = 1 - stages.keys[i].sender
        if flow.phase != PH_OPEN:
            facts = <char*>facts_of(core, stages.flows[i])
            for at in range(0, sizeof(Facts), 64):
                prefetch_write(facts + at)
        elif flow.seq[peer].marks & EM_TIMED or stages.segments[i].payload_bytes:
            facts = <char*>&facts_of(core, stages.flows[i]).rtt
            prefetch_write(facts)
            prefetch_write(facts + sizeof(Rtt) - 1)     # it may cross a line

# Starts loading the places in the order of eviction, and then those beside them. Before: Core.capped.
cdef inline void prefetch_ages(Core* core, const Stages* stages) noexcept nogil:
    cdef uint32_t i
    cdef const Age* age
    for i in range(stages.count):
        if stages.flows[i]:
            prefetch_write(age_of(core, stages.flows[i]))
    for i in range(stages.count):
        if stages.flows[i]:
            age = age_of(core, stages.flows[i])
            prefetch_write(age_of(core, age.older))
            prefetch_write(age_of(core, age.newer))

cdef inline void count_skip(Core* core, int verdict, const PacketRef* packet) noexcept nogil:
    if verdict == VD_LINK_TYPE:
        core.stats.link_types[packet.link_type] += 1
    else:
        core.stats.skips[verdict] += 1

cdef inline void note_time(Core* core, int64_t time_ns) noexcept nogil:
    if core.stats.packets == 0 or time_ns < core.stats.first_time:
        core.stats.first_time = time_ns
    if core.stats.packets == 0 or time_ns > core.stats.last_time:
        core.stats.last_time = time_ns

# Whether the packet in hand is a capture duplicate; asked once a packet.
cdef inline bint is_copy(Core* core, const Stages* stages, const PacketRef* packet) noexcept nogil:
    return (core.config.duplicates != DUP_KEEP and stages.verdicts[stages.at] == VD_SEGMENT
            and take_duplicate(&core.firsts, &stages.segments[stages.at], packet, stages.fingerprints[stages.at],
                               core.clock))

cdef inline void count_or_skip_copy(Core* core, Stages* stages, const PacketRef* packet) noexcept nogil:
    cdef const Key* key = &stages.keys[stages.at]
    stages.verdicts[stages.at] = VD_CAPTURE_DUPLICATE
    if core.config.duplicates != DUP_COUNT or not track_copy(core, &stages.segments[stages.at], packet, key):
        count_skip(core, VD_CAPTURE_DUPLICATE, packet)
    elif core.watch != NULL:
        watch_packet(core.watch, table_find(core, key), core.stats.packets)

# Tracks the rest of the batch. Returns False when a sink is full; the next call goes on there.
cdef inline bint track_batch(Core* core, Stages* stages, const Batch* batch) noexcept nogil:
    cdef const PacketRef* packet
    while stages.at < stages.count:
        packet = &batch.packets[stages.at]
        if not stages.stepping:
            if core.clock == NEVER:
                start_clock(core, packet.clock_ns)
            elif packet.clock_ns > core.clock:
                core.clock = packet.clock_ns
            if core.clock - core.config.reorder >= core.next_sweep and not sweep(core, core.clock - core.config.reorder):
                return False
            if rows_full(&core.rows):
                return False
            note_time(core, packet.time_ns)
            core.stats.packets += 1
            if is_copy(core, stages, packet):
                count_or_skip_copy(core, stages, packet)
            elif stages.verdicts[stages.at] == VD_SEGMENT:
                track_segment(core, &stages.segments[stages.at], packet, &stages.keys[stages.at], stages.flows[stages.at])
                if core.watch != NULL:
                    watch_packet(core.watch, table_find(core, &stages.keys[stages.at]), core.stats.packets)
            else:
                count_skip(core, stages.verdicts[stages.at], packet)
                if is_quote(stages, stages.at):
                    track_quote(core, &stages.segments[stages.at], packet, &stages.keys[stages.at])
        if packet.flags & PF_STEP_BACK:
            stages.stepping = True
            if not step_back(core, packet.time_ns):
                return False
            stages.stepping = False
        stages.at += 1
    return True
