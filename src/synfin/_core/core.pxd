# Everything that one tracker owns, and the birth and the end of records. What a segment does to a record stands in
# opening.pxd, data.pxd, closing.pxd and machine.pxd; which record it belongs to, in border.pxd.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from synfin._core.arena cimport BLOCKS_SHIFT, RECORDS_SHIFT, Arena, arena_at, arena_give, arena_take
from synfin._core.bytes cimport be32, put_be32
from synfin._core.declared cimport *
from synfin._core.duplicates cimport Firsts
from synfin._core.filter cimport Program
from synfin._core.flow cimport *
from synfin._core.intervals cimport *
from synfin._core.key cimport NO_VLAN, Key, key_hash
from synfin._core.keyed cimport KEY_TABLES, ByKey, Kept
from synfin._core.listed cimport Listing
from synfin._core.parts cimport Parts
from synfin._core.sink cimport Sink
from synfin._core.table cimport *
from synfin._core.types cimport *
from synfin._core.watch cimport Watch
from synfin._core.wheel cimport *

# Keeps what is rare out of the way of what is usual.
cdef extern from *:
    bint unlikely(bint condition) nogil

cdef enum:
    WINDOW_SCALE_MAX = 14    # RFC 7323 section 2.3; also what an unknown scale counts as (SPEC 3.4)

# Timeouts (ns) by phase, and what else is fixed for a run.
cdef struct Config:
    int64_t timeout[8]       # indexed by PH_*
    int64_t reorder
    bint key_vlan
    bint key_tunnel
    bint verify_checksums
    uint8_t duplicates       # DUP_*
    uint64_t seed
    uint8_t machine[EV_COUNT * ST_COUNT]
    uint64_t server_ports[1024]
    uint64_t zeek_ports[1024]
    bint others              # columns of others.pxd were asked for
    uint32_t max_flows       # UINT32_MAX: no such cap

# Kinds of records in the order in which a cap takes them (ages.pxd).
cdef enum:
    RANK_UNANSWERED = 0      # unanswered SYNs, and midstream with one end seen
    RANK_HALF_OPEN = 1
    RANK_LINGERING = 2       # closed or reset
    RANK_OPEN = 3
    RANKS = 4

# What the process may take, where that is bounded (memory.pxd).
cdef struct Budget:
    int64_t limit            # bytes; 0: no bound
    int64_t spare            # of it, what is left to input and output
    int64_t beside           # most that the process was seen to have beside what is counted here
    bint records_full        # no more room is made for records,
    bint index_full          # ... the index,
    bint blocks_full         # ... blocks
    bint keys_full           # ... services and clients in tables by key

cdef struct Stats:
    int64_t packets
    int64_t packets_in_records
    int64_t ip_bytes
    int64_t skips[VD_COUNT]
    int64_t link_types[65536]   # packets of link types that are not decoded
    int64_t first_time
    int64_t last_time
    int64_t records
    int64_t handshakes[HS_COUNT]
    int64_t closes[CL_COUNT]
    int64_t closers[SIDE_COUNT]
    int64_t end_reasons[END_COUNT]
    int64_t evicted[RANKS]
    int64_t steps
    int64_t icmp_errors      # that quote a segment in flight of a record
    int64_t icmp_rejected    # that quote none of the record's segments in flight
    int64_t suspects         # packets that look like capture duplicates where nobody looks for them

# A record's place in the list of its rank; 0: none.
cdef struct Age:
    uint32_t older
    uint32_t newer

cdef struct Rank:
    uint32_t oldest          # 0: no record has this rank
    uint32_t newest

cdef struct Core:
    Config config
    Table table
    Arena flows
    Arena facts              # same numbers as flows
    Arena address_pairs
    Arena extras
    Arena wides
    Arena troubles
    Arena copies
    Arena copy_pairs
    Arena helds
    Arena vlans
    Arena tunnels
    Arena others             # same numbers as flows; empty unless Config.others
    Arena held_others        # Others.without and Others.next
    Arena ages               # likewise; empty unless `capped`
    bint capped              # a cap on records or on memory is set
    Arena kept               # likewise; empty unless `keyed`
    bint keyed               # a table by key is asked for, or services are listed (by.pxd)
    ByKey by[KEY_TABLES]
    Listing listing
    int64_t since            # the first slice of the clock's present run
    int64_t told             # the interval whose parts by key are being told; NEVER: none is
    bint told_complete
    bint sorted_parts        # parts of an interval go by key: several trackers share one input
    bint attended            # somebody asks more of records than rows: `capped`, `keyed`, `watch`
    uint32_t cap             # records that may live at once
    Rank ranks[RANKS]
    Budget budget
    Firsts firsts
    Wheel wheel
    Intervals intervals
    Sink rows
    Sink interval_rows
    Parts parts              # instead of interval rows, where the tracker is one of several
    Stats stats
    int64_t clock            # input clock: the highest that a packet brought
    Program* programs        # by link type; NULL: no filter
    Watch* watch             # NULL: nobody asks which packets went where
    int64_t next_sweep       # when the sweep comes next: at a slice's end, as long as a late one shows in no row

# One segment on its way through the record it belongs to.
cdef struct Context:
    Core* core
    Flow* flow
    Facts* facts
    const Segment* segment
    const PacketRef* packet
    int64_t effective
    uint32_t number          # of the flow
    uint32_t unique          # payload bytes of the segment that are new (0 until they are accounted)
    int d                    # the sender's end, 0 or 1

# ------------------------------------------------------------------------------------------------ small views

# As arena_at, with what the compiler knows of these two arenas: every packet asks several times.
cdef inline Facts* facts_of(Core* core, uint32_t number) noexcept nogil:
    return <Facts*>core.facts.chunks[number >> RECORDS_SHIFT] + (number & ((1 << RECORDS_SHIFT) - 1))

cdef inline Flow* flow_of(Core* core, uint32_t number) noexcept nogil:
    return <Flow*>core.flows.chunks[number >> RECORDS_SHIFT] + (number & ((1 << RECORDS_SHIFT) - 1))

cdef inline int client_end(const Flow* flow) noexcept nogil:
    return 1 if flow.marks & FM_CLIENT_IS_1 else 0

# As arena_at, with what the compiler knows of the arenas of blocks.
cdef inline void* block_at(const Arena* arena, uint32_t number, uint64_t size) noexcept nogil:
    return arena.chunks[number >> BLOCKS_SHIFT] + (number & ((1 << BLOCKS_SHIFT) - 1)) * size

# The block of a record whose number stands at `number`; it is taken where there is none.
cdef inline void* block_of(Arena* arena, uint32_t* number, uint64_t size) noexcept nogil:
    if unlikely(number[0] == 0):
        number[0] = arena_take(arena)
    return block_at(arena, number[0], size)

cdef inline Extra* extra_of(Core* core, Facts* facts) noexcept nogil:
    return <Extra*>block_of(&core.extras, &facts.extra, sizeof(Extra))

cdef inline Trouble* trouble_of(Core* core, Facts* facts) noexcept nogil:
    return <Trouble*>block_of(&core.troubles, &extra_of(core, facts).trouble, sizeof(Trouble))

cdef inline Closing* closing_of(Core* core, Facts* facts) noexcept nogil:
    return &extra_of(core, facts).closing

cdef inline Copies* copies_of(Core* core, Facts* facts) noexcept nogil:
    return <Copies*>block_of(&core.copies, &extra_of(core, facts).copies, sizeof(Copies))

cdef inline Held* held_of(Core* core, Facts* facts) noexcept nogil:
    return <Held*>block_of(&core.helds, &copies_of(core, facts).held, sizeof(Held))

# The same to look at only: where the record has no such block, one of zeros.
cdef inline const Extra* peek_extra(Core* core, const Facts* facts) noexcept nogil:
    return <const Extra*>block_at(&core.extras, facts.extra, sizeof(Extra))

cdef inline const Trouble* peek_trouble(Core* core, const Facts* facts) noexcept nogil:
    return <const Trouble*>block_at(&core.troubles, peek_extra(core, facts).trouble, sizeof(Trouble))

cdef inline const Closing* peek_closing(Core* core, const Facts* facts) noexcept nogil:
    return &peek_extra(core, facts).closing

cdef inline const Copies* peek_copies(Core* core, const Facts* facts) noexcept nogil:
    return <const Copies*>block_at(&core.copies, peek_extra(core, facts).copies, sizeof(Copies))

# NULL: the record's first packet was in none.
cdef inline Tunnel* tunnel_of(Core* core, const Facts* facts) noexcept nogil:
    cdef uint32_t number = peek_extra(core, facts).tunnel
    return <Tunnel*>arena_at(&core.tunnels, number) if number else NULL

# Before: the record has none.
cdef inline void keep_tunnel(Core* core, Facts* facts, const Tunnel* tunnel) noexcept nogil:
    if tunnel != NULL:
        (<Tunnel*>block_of(&core.tunnels, &extra_of(core, facts).tunnel, sizeof(Tunnel)))[0] = tunnel[0]

cdef inline bint same_tunnel(const Tunnel* a, const Tunnel* b) noexcept nogil:
    if a == NULL or b == NULL:
        return a == b
    return a.kind == b.kind and a.id == b.id

cdef inline bint is_finished(const Flow* flow) noexcept nogil:
    return flow.phase == PH_CLOSED or (flow.phase == PH_RESET and not flow.marks & FM_ATTEMPT)

cdef inline bint is_server_port(const Config* config, uint16_t port) noexcept nogil:
    return (config.server_ports[port >> 6] >> (port & 63)) & 1

# Before: Config.others.
cdef inline Others* others_of(Core* core, uint32_t number) noexcept nogil:
    return <Others*>arena_at(&core.others, number)

# ------------------------------------------------------------------------------------------------ gauges

# What the gauges see of a record: both states (0: none that is counted), and above them its traits: five yes-or-no
# facts in the order of the gauges from G_CONNECTIONS on. Which traits a phase can have is a byte for each phase; in
# PH_SYN, none while an ICMP error says that the SYN did not arrive. Hardly a branch: every packet that opens or closes
# something asks twice.
cdef enum:
    TRAITS_SYN = 0x13        # connections, opening, midstream
    TRAITS_SYNACK = 0x15     # connections, half_open, midstream
    TRAITS_OPEN = 0x19       # connections, half_closed, midstream

cdef inline uint32_t _gauged(uint8_t state) noexcept nogil:
    return state if state >= ST_SYN_SENT else 0

cdef inline uint32_t face_of(const Flow* flow) noexcept nogil:
    cdef uint64_t by_phase = ((<uint64_t>TRAITS_SYN << 8 * PH_SYN) | (<uint64_t>TRAITS_SYNACK << 8 * PH_SYNACK)
                              | (<uint64_t>TRAITS_OPEN << 8 * PH_OPEN) | (<uint64_t>TRAITS_OPEN << 8 * PH_ONE_SIDED)
                              | (<uint64_t>TRAITS_OPEN << 8 * PH_CLOSING))
    cdef uint32_t either = flow.seq[0].marks | flow.seq[1].marks
    cdef uint32_t one = flow.seq[0].marks ^ flow.seq[1].marks
    cdef uint32_t half_closed = ((one & EM_FIN) != 0) & ((either & EM_FIN_ACKED) != 0)
    cdef uint32_t midstream = (flow.marks & FM_NOT_SEEN) != 0
    cdef uint32_t traits = (by_phase >> 8 * flow.phase) & (7 | half_closed << 3 | midstream << 4)
    if unlikely(either & EM_UNREACHABLE) and flow.phase == PH_SYN:
        traits = 0
    return _gauged(flow.state[0]) | _gauged(flow.state[1]) << 4 | traits << 8

cdef inline void _count_face(Slice* s, uint32_t face, int sign) noexcept nogil:
    s.states[face & 15] += sign
    s.states[(face >> 4) & 15] += sign
    s.traits[face >> 8] += sign

# What a slice's changes make of the gauges.
cdef inline void add_changes(const Slice* s, int64_t* gauges) noexcept nogil:
    cdef int i, bit
    for i in range(ST_SYN_SENT, ST_COUNT):
        gauges[i - ST_SYN_SENT] += s.states[i]
    for i in range(1, 32):
        for bit in range(5 if s.traits[i] else 0):
            if (i >> bit) & 1:
                gauges[G_CONNECTIONS + bit] += s.traits[i]

# A record's face changed at effective time (0: there was, or is, none).
cdef inline void face_change(Core* core, int64_t effective, uint32_t before, uint32_t after) noexcept nogil:
    cdef Slice* s
    if before == after:
        return
    s = &core.intervals.slices[interval_slice_at(&core.intervals, effective) & core.intervals.slice_mask]
    s.used = True
    _count_face(s, before, -1)
    _count_face(s, after, 1)
    interval_at(&core.intervals, effective).used = True

# ------------------------------------------------------------------------------------------------ timers

cdef inline void timer_unlink(Core* core, uint32_t number, Facts* facts) noexcept nogil:
    if facts.timer_prev:
        facts_of(core, facts.timer_prev).timer_next = facts.timer_next
    else:
        core.wheel.heads[facts.choices.timer_slot] = facts.timer_next
    if facts.timer_next:
        facts_of(core, facts.timer_next).timer_prev = facts.timer_prev
    core.wheel.level_count[facts.choices.timer_slot >> WHEEL_BITS] -= 1
    facts.choices.timer_slot = NO_SLOT

cdef inline void timer_link(Core* core, uint32_t number, Facts* facts, uint16_t slot) noexcept nogil:
    cdef uint32_t head = core.wheel.heads[slot]
    facts.choices.timer_slot = slot
    facts.timer_prev = 0
    facts.timer_next = head
    if head:
        facts_of(core, head).timer_prev = number
    core.wheel.heads[slot] = number
    core.wheel.level_count[slot >> WHEEL_BITS] += 1

# Sets a deadline that may be earlier than the one that the wheel knows: at a change of phase only.
cdef inline void timer_set(Core* core, uint32_t number, Flow* flow, Facts* facts, int64_t deadline) noexcept nogil:
    cdef uint16_t slot
    flow.deadline = deadline
    slot = wheel_slot(&core.wheel, deadline)
    if slot == facts.choices.timer_slot:
        return
    if facts.choices.timer_slot != NO_SLOT:
        timer_unlink(core, number, facts)
    timer_link(core, number, facts, slot)

# ------------------------------------------------------------------------------------------------ index

# The record of a key, 0 if there is none.
cdef inline uint32_t table_find(Core* core, const Key* key) noexcept nogil:
    cdef Table* table = &core.table
    cdef uint32_t at = key.hash & table.mask
    while table.slots[at].flow:
        if table.slots[at].hash == key.hash and flow_has_key(core, table.slots[at].flow, key):
            return table.slots[at].flow
        at = (at + 1) & table.mask
    return 0

# The same, where `guess` was the key's record a moment ago (0: none): it may have ended, and its place been given away.
cdef inline uint32_t table_find_again(Core* core, const Key* key, uint32_t guess) noexcept nogil:
    if guess and flow_of(core, guess).phase != PH_FREE and flow_has_key(core, guess, key):
        return guess
    return table_find(core, key)

cdef inline bint flow_has_key(Core* core, uint32_t number, const Key* key) noexcept nogil:
    cdef Flow* flow = flow_of(core, number)
    cdef AddressPair* pair
    if memcmp(flow.port, key.port, 4) != 0:
        return False
    if core.config.key_vlan and facts_of(core, number).vlan_first != key.vlan:
        return False
    if core.config.key_tunnel and not same_tunnel(tunnel_of(core, facts_of(core, number)), key.tunnel):
        return False
    if key.ip_version == 4:
        return not flow.marks & FM_IPV6 and flow.key_low == be32(key.addr[0]) and flow.key_high == be32(key.addr[1])
    if not flow.marks & FM_IPV6 or flow.key_high != key.hash:
        return False
    pair = <AddressPair*>arena_at(&core.address_pairs, flow.key_low)
    return memcmp(pair.addr[0], key.addr[0], 32) == 0

# ------------------------------------------------------------------------------------------------ birth

# A record for a key, with nothing said yet about its states. Before: reserves hold (memory.pxd).
cdef inline uint32_t flow_create(Core* core, const Key* key) noexcept nogil:
    cdef uint32_t number = arena_take(&core.flows)
    cdef Flow* flow = flow_of(core, number)
    cdef Facts* facts = facts_of(core, number)
    cdef AddressPair* pair
    memset(facts, 0, sizeof(Facts))
    if core.config.others:
        memset(others_of(core, number), 0, sizeof(Others))
    flow.port[0] = key.port[0]
    flow.port[1] = key.port[1]
    if key.ip_version == 4:
        flow.key_low = be32(key.addr[0])
        flow.key_high = be32(key.addr[1])
    else:
        flow.key_low = arena_take(&core.address_pairs)
        flow.key_high = key.hash
        flow.marks |= FM_IPV6
        pair = <AddressPair*>arena_at(&core.address_pairs, flow.key_low)
        memcpy(pair.addr[0], key.addr[0], 32)
    facts.vlan_first = key.vlan
    facts.choices.timer_slot = NO_SLOT
    facts.choices.quality_server = RQ_NONE
    facts.choices.quality_client = RQ_NONE
    flow.end[0].vlan = NO_VLAN
    flow.end[1].vlan = NO_VLAN
    facts.rtt[0].min = facts.rtt[1].min = 0xFFFFFFFF     # with min_high LONG_RTT_NS
    facts.rtt[0].min_high = facts.rtt[1].min_high = 0xFF
    flow.last_seen = NEVER
    flow.last_effective = NEVER
    table_insert(&core.table, key.hash, number)
    return number

# Rebuilds the key of a record (its hash included), for the index and for the row.
cdef inline void flow_key(Core* core, uint32_t number, Key* key) noexcept nogil:
    cdef Flow* flow = flow_of(core, number)
    memset(key, 0, sizeof(Key))
    key.port[0] = flow.port[0]
    key.port[1] = flow.port[1]
    key.vlan = facts_of(core, number).vlan_first if core.config.key_vlan else NO_VLAN
    key.tunnel = tunnel_of(core, facts_of(core, number)) if core.config.key_tunnel else NULL
    if flow.marks & FM_IPV6:
        key.ip_version = 6
        memcpy(key.addr[0], arena_at(&core.address_pairs, flow.key_low), 32)
    else:
        key.ip_version = 4
        put_be32(key.addr[0], flow.key_low)
        put_be32(key.addr[1], flow.key_high)
    key.hash = key_hash(key, core.config.seed)
