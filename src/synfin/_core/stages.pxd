# A batch on its way: every packet is decoded and hashed, and then one after another is tracked, while what the next ones
# will touch is being loaded.
from libc.stdint cimport int8_t, int64_t, uint32_t, uint64_t

from synfin._core.ages cimport age_of, age_packet
from synfin._core.by cimport by_packet
from synfin._core.brief cimport Brief, brief_of, brief_plain, whole_of_plain
from synfin._core.core cimport *
from synfin._core.decode cimport decode
from synfin._core.duplicates cimport (
    DUP_COUNT, DUP_KEEP, fingerprint, prefetch_oldest, prefetch_slot, take_duplicate,
)
from synfin._core.filter cimport Program, filter_accepts
from synfin._core.key cimport Key, key_of
from synfin._core.quote cimport track_quote
from synfin._core.record cimport prefetch_around
from synfin._core.segment cimport track_copy, track_segment
from synfin._core.sweep cimport rows_full, start_clock, step_back, sweep
from synfin._core.usual cimport track_usual
from synfin._core.watch cimport watch_packet

cdef extern from "core.h" nogil:
    void prefetch_read(const void* p)
    void prefetch_write(const void* p)

cdef enum:
    FLOWS_AHEAD = 16         # packets between the call for a record and its use,
    FACTS_AHEAD = 8          # ... for what else its packet needs,
    BLOCKS_AHEAD = 4         # ... and for what the facts point to

# What a batch is on its way through the stages.
cdef struct Stages:
    uint32_t count
    uint32_t at              # the packet in hand, where a full sink stopped the last call
    bint stepping            # ... after it was tracked, before the clock stepped back
    Brief briefs[BATCH_PACKETS]
    # Of packets whose brief does not say enough:
    Segment segments[BATCH_PACKETS]
    Tunnel tunnels[BATCH_PACKETS]    # what segments point to
    Key keys[BATCH_PACKETS]
    uint64_t fingerprints[BATCH_PACKETS]     # of segments, unless duplicates are kept

# ------------------------------------------------------------------------------------------------ stages

cdef inline bint is_quote(const Stages* stages, uint32_t i) noexcept nogil:
    return stages.briefs[i].verdict == VD_ICMP_ERROR and stages.segments[i].quoted

cdef inline bint is_filtered(const Core* core, const PacketRef* packet) noexcept nogil:
    cdef const Program* program = &core.programs[packet.link_type]
    return program.steps != NULL and not filter_accepts(program, packet)

cdef inline void note_times(Core* core, const Batch* batch) noexcept nogil:
    cdef int64_t first = core.stats.first_time, last = core.stats.last_time
    cdef uint32_t i
    if core.stats.packets == 0 and batch.count:
        first = last = batch.packets[0].time_ns
    for i in range(batch.count):
        first = min(first, batch.packets[i].time_ns)
        last = max(last, batch.packets[i].time_ns)
    core.stats.first_time = first
    core.stats.last_time = last

# Decodes a packet wholly; returns whether the index is to be asked for its key.
cdef inline bint decode_whole(Core* core, Stages* stages, const PacketRef* packet, uint32_t i) noexcept nogil:
    cdef Brief* brief = &stages.briefs[i]
    cdef Segment* segment = &stages.segments[i]
    if core.programs != NULL and is_filtered(core, packet):
        brief.verdict = VD_FILTERED
        return False
    brief.whole = 1
    brief.verdict = <int8_t>decode(packet, segment, &stages.tunnels[i], core.config.verify_checksums)
    if brief.verdict != VD_SEGMENT and not is_quote(stages, i):
        return False
    key_of(segment, core.config.key_vlan, core.config.key_tunnel, core.config.seed, &stages.keys[i])
    brief_of(segment, &stages.keys[i], brief)
    return True

# Decodes a batch and starts loading the index slots that it will look at.
cdef inline void decode_batch(Core* core, Stages* stages, const Batch* batch) noexcept nogil:
    cdef bint keep = core.config.duplicates == DUP_KEEP
    cdef bint may_be_plain = keep and core.programs == NULL and not core.config.verify_checksums
    cdef uint64_t seed = core.config.seed
    cdef const Slot* slots = core.table.slots
    cdef uint32_t mask = core.table.mask
    cdef uint32_t i
    cdef Brief* brief
    stages.count = batch.count
    stages.at = 0
    stages.stepping = False
    note_times(core, batch)
    for i in range(batch.count):
        brief = &stages.briefs[i]
        if ((may_be_plain and brief_plain(&batch.packets[i], seed, brief))
                or decode_whole(core, stages, &batch.packets[i], i)):
            prefetch_read(&slots[brief.hash & mask])
            if not keep and brief.verdict == VD_SEGMENT:
                stages.fingerprints[i] = fingerprint(&stages.segments[i], seed)
                prefetch_slot(&core.firsts, stages.fingerprints[i])
    if not keep and batch.count:
        prefetch_oldest(&core.firsts, batch.packets[batch.count - 1].clock_ns, batch.count)

# The record that the index names for a hash, 0: none. Another one may have the same hash.
cdef inline uint32_t named_by(const Table* table, uint32_t hashed) noexcept nogil:
    cdef uint32_t at = hashed & table.mask
    while table.slots[at].flow and table.slots[at].hash != hashed:
        at = (at + 1) & table.mask
    return table.slots[at].flow

# Starts loading the record that the index names. A hint only: the record may end or begin before its packet's turn.
cdef inline void prefetch_flow(Core* core, Brief* brief) noexcept nogil:
    cdef Flow* flow
    brief.flow = 0
    if brief.verdict != VD_SEGMENT:
        return
    brief.flow = named_by(&core.table, brief.hash)
    if brief.flow:
        flow = flow_of(core, brief.flow)
        prefetch_write(flow)
        prefetch_write(<char*>flow + 64)

# Whether a packet may be one of those that open or close a connection, and so read and write all of its facts.
cdef inline bint is_turn(const Flow* flow, const Brief* brief) noexcept nogil:
    return (flow.phase != PH_OPEN or brief.flags & (TH_SYN | TH_FIN | TH_RST) != 0
            or flow.state[0] != ST_ESTABLISHED)

# Starts loading what else the record's packet needs. In an open connection: the addresses of IPv6, the RTT sums where a
# segment may begin or complete a sample, and the instants where it brings an end's first payload.
cdef inline void prefetch_facts(Core* core, Brief* brief) noexcept nogil:
    cdef uint32_t at
    cdef char* facts
    cdef char* sums
    cdef const Flow* flow
    cdef uint16_t marks
    brief.turn = 0
    if brief.flow == 0:
        return
    flow = flow_of(core, brief.flow)
    facts = <char*>facts_of(core, brief.flow)
    marks = flow.seq[brief.sender].marks
    if flow.marks & FM_IPV6:
        prefetch_read(arena_at(&core.address_pairs, flow.key_low))
    if is_turn(flow, brief):
        brief.turn = 1
        for at in range(0, sizeof(Facts), 64):
            prefetch_write(facts + at)
        prefetch_write(facts + sizeof(Facts) - 1)       # they begin anywhere in a line
        return
    if flow.seq[1 - brief.sender].marks & EM_TIMED:
        sums = <char*>&(<Facts*>facts).rtt[1 - brief.sender]
        prefetch_write(sums)
        prefetch_write(sums + sizeof(Rtt) - 1)
    if brief.payload_bytes and not marks & EM_TIMED:
        prefetch_write(&(<Facts*>facts).rtt[brief.sender].timed_at)
    if brief.payload_bytes and not marks & EM_PAYLOAD:
        prefetch_write(&(<Facts*>facts).born)
        prefetch_write(&(<Facts*>facts).extra)
        prefetch_write(&(<Facts*>facts).marks)

# Starts loading what the facts point to. Before: prefetch_facts, some packets ago.
cdef inline void prefetch_blocks(Core* core, const Brief* brief) noexcept nogil:
    if brief.turn:
        prefetch_around(core, facts_of(core, brief.flow))

# Starts loading a record's place in the order of eviction, and later those beside it. Before: Core.capped.
cdef inline void prefetch_age(Core* core, const Brief* brief) noexcept nogil:
    if brief.flow:
        prefetch_write(age_of(core, brief.flow))

cdef inline void prefetch_ages_beside(Core* core, const Brief* brief) noexcept nogil:
    cdef const Age* age
    if brief.flow:
        age = age_of(core, brief.flow)
        prefetch_write(age_of(core, age.older))
        prefetch_write(age_of(core, age.newer))

# What the first packets of a batch touch starts loading before the first is tracked,
cdef inline void prefetch_first(Core* core, Stages* stages) noexcept nogil:
    cdef uint32_t i
    for i in range(min(stages.count, <uint32_t>FLOWS_AHEAD)):
        prefetch_flow(core, &stages.briefs[i])
    for i in range(min(stages.count, <uint32_t>FACTS_AHEAD)):
        prefetch_facts(core, &stages.briefs[i])

# ... and with each packet what some packets behind it touch, each thing when what points to it has arrived: so memory
# works while the core computes.
cdef inline void prefetch_ahead(Core* core, Stages* stages, uint32_t at) noexcept nogil:
    if at + FLOWS_AHEAD < stages.count:
        prefetch_flow(core, &stages.briefs[at + FLOWS_AHEAD])
        prefetch_facts(core, &stages.briefs[at + FACTS_AHEAD])
        prefetch_blocks(core, &stages.briefs[at + BLOCKS_AHEAD])
        if unlikely(core.capped):
            prefetch_age(core, &stages.briefs[at + FLOWS_AHEAD])
            prefetch_ages_beside(core, &stages.briefs[at + FACTS_AHEAD])
    elif at + FACTS_AHEAD < stages.count:
        prefetch_facts(core, &stages.briefs[at + FACTS_AHEAD])
        prefetch_blocks(core, &stages.briefs[at + BLOCKS_AHEAD])

cdef inline void count_skip(Core* core, int verdict, const PacketRef* packet) noexcept nogil:
    if verdict == VD_LINK_TYPE:
        core.stats.link_types[packet.link_type] += 1
    else:
        core.stats.skips[verdict] += 1

# Whether the packet in hand is a capture duplicate; asked once a packet, where duplicates are not kept.
cdef inline bint is_copy(Core* core, const Stages* stages, const PacketRef* packet) noexcept nogil:
    return (stages.briefs[stages.at].verdict == VD_SEGMENT
            and take_duplicate(&core.firsts, &stages.segments[stages.at], packet, stages.fingerprints[stages.at],
                               core.clock))

cdef inline void count_or_skip_copy(Core* core, Stages* stages, const PacketRef* packet) noexcept nogil:
    cdef const Key* key = &stages.keys[stages.at]
    stages.briefs[stages.at].verdict = VD_CAPTURE_DUPLICATE
    if core.config.duplicates != DUP_COUNT or not track_copy(core, &stages.segments[stages.at], packet, key):
        count_skip(core, VD_CAPTURE_DUPLICATE, packet)
    elif core.watch != NULL:
        watch_packet(core.watch, table_find(core, key), core.stats.packets)

# What is kept beside records follows the packet that was tracked.
cdef inline void attend_packet(Core* core, uint32_t number, uint32_t ip_bytes) noexcept nogil:
    if core.watch != NULL:
        watch_packet(core.watch, number, core.stats.packets)
    if core.keyed:
        by_packet(core, number, flow_of(core, number).last_effective, 1, ip_bytes)

# Tracks the packet in hand, which is no capture duplicate and no usual segment.
cdef inline void track_whole(Core* core, Stages* stages, const PacketRef* packet) noexcept nogil:
    cdef uint32_t i = stages.at
    if stages.briefs[i].verdict != VD_SEGMENT:
        count_skip(core, stages.briefs[i].verdict, packet)
        if is_quote(stages, i):
            track_quote(core, &stages.segments[i], packet, &stages.keys[i])
        return
    if not stages.briefs[i].whole:
        whole_of_plain(packet, &stages.briefs[i], &stages.segments[i], &stages.keys[i])
    track_segment(core, &stages.segments[i], packet, &stages.keys[i], stages.briefs[i].flow)
    if unlikely(core.attended):
        attend_packet(core, table_find(core, &stages.keys[i]), stages.segments[i].ip_bytes)

# Tracks the packet in hand as usual, where it is a usual segment.
cdef inline bint track_as_usual(Core* core, Brief* brief, int64_t time_ns) noexcept nogil:
    if brief.verdict != VD_SEGMENT:
        return False
    if brief.flow == 0:
        brief.flow = named_by(&core.table, brief.hash)   # begun in this batch
    if not track_usual(core, brief, time_ns):
        return False
    if unlikely(core.attended):
        if core.capped:
            age_packet(core, brief.flow, PH_OPEN, PH_OPEN)
        attend_packet(core, brief.flow, brief.ip_bytes)
    return True

# Tracks the rest of the batch. Returns False when a sink is full; the next call goes on there.
cdef inline bint track_batch(Core* core, Stages* stages, const Batch* batch) noexcept nogil:
    cdef const Config* config = &core.config
    cdef bint keep = config.duplicates == DUP_KEEP
    cdef bint usual = not (config.others or config.key_vlan or config.key_tunnel)
    cdef const PacketRef* packet
    while stages.at < stages.count:
        packet = &batch.packets[stages.at]
        prefetch_ahead(core, stages, stages.at)
        if not stages.stepping:
            if core.clock == NEVER:
                start_clock(core, packet.clock_ns)
            elif packet.clock_ns > core.clock:
                core.clock = packet.clock_ns
            if core.clock - config.reorder >= core.next_sweep and not sweep(core, core.clock - config.reorder):
                return False
            if rows_full(&core.rows):
                return False
            core.stats.packets += 1
            if not keep and is_copy(core, stages, packet):
                count_or_skip_copy(core, stages, packet)
            elif not usual or not track_as_usual(core, &stages.briefs[stages.at], packet.time_ns):
                track_whole(core, stages, packet)
        if packet.flags & PF_STEP_BACK:
            stages.stepping = True
            if not step_back(core, packet.time_ns):
                return False
            stages.stepping = False
        stages.at += 1
    return True
