"""A live record as Python sees it between two packets: its row as it stands, and what the tracker knows beyond it."""

from libc.stdint cimport int16_t, int32_t, int64_t, int8_t, uint32_t
from libc.string cimport memset

from synfin._core.block cimport sink_close, sink_open
from synfin._core.core cimport *
from synfin._core.decode cimport decode
from synfin._core.key cimport Key, key_of
from synfin._core.row cimport put_interim_row
from synfin._core.sink cimport WIDTH_BIT, AddressBook, ColumnBuffer, Sink

from synfin import schema

_NAMES = [column.name for column in schema.FLOWS]
_KINDS = [None if column.optional else column.kind for column in schema.FLOWS]
_VALUES = {"bool": (False, True), **{f"enum:{name}": values for name, values in schema.ENUMS.items()}}
_PLAN = [(column.name, _VALUES.get(column.kind), column.kind == "text") for column in schema.FLOWS]
_PHASES = ("free", "syn", "synack", "open", "one_sided", "closing", "closed", "reset")  # PH_*


cdef str _address(const AddressBook* book, int64_t code):
    return book.text[book.offsets[code]:book.offsets[code + 1]].decode("ascii")


cdef object _value(const ColumnBuffer* column):
    if not column.valid[0] & 1:
        return None
    if column.width == 8:
        return (<int64_t*>column.values)[0]
    if column.width == 4:
        return (<int32_t*>column.values)[0]
    if column.width == 2:
        return (<int16_t*>column.values)[0]
    return column.values[0] & 1 if column.width == WIDTH_BIT else (<int8_t*>column.values)[0]


cdef dict _row(const Sink* sink, list files, list interfaces):
    cdef int i
    cdef tuple values
    cdef dict texts = {"first_file": files, "interface": interfaces}
    row = {}
    for i, (name, values, is_text) in enumerate(_PLAN):
        if sink.columns[i].values == NULL:
            continue
        value = _value(&sink.columns[i])
        if value is not None:
            if values is not None:
                value = values[value]
            elif is_text:
                value = texts[name][value] if name in texts else _address(&sink.addresses, value)
        row[name] = value
    return row


cdef dict _end(Core* core, Flow* flow, Facts* facts, int end):
    cdef Seq* seq = &flow.seq[end]
    cdef const EndTrouble* trouble = &peek_trouble(core, facts).end[end]
    cdef bint unscaled = flow.marks & (FM_UNSCALED_1 if end else FM_UNSCALED_0)
    cdef uint32_t i
    holes = []
    for i in range(trouble.hole_count):
        holes.append((trouble.holes[i].low, trouble.holes[i].high))
    return {
        "isn": facts.opening[end].isn if seq.marks & EM_SYN else None,
        "syn_acknowledged": bool(seq.marks & EM_SYN_ACKED),
        "nxt": seq.nxt if seq.marks & EM_NXT else None,
        "ack": seq.ack if seq.marks & EM_ACK else None,
        "window": <int64_t>seq.window << (0 if unscaled else flow.end[end].window_shift)
        if seq.marks & EM_WINDOW else None,
        "window_max": seq.window_max if seq.marks & EM_WINDOW else None,
        "fin_seq": closing_of(core, facts).fin_seq[end] if seq.marks & EM_FIN else None,
        "fin_acknowledged": bool(seq.marks & EM_FIN_ACKED),
        "holes": holes,
        "rtt_total": facts.rtt[1 - end].total,
    }


cdef object _held(Core* core, Flow* flow, Facts* facts):
    cdef const Held* held
    if not flow.marks & FM_HELD:
        return None
    held = held_of(core, facts)
    return {
        "by": "client" if held.end == client_end(flow) else "server",
        "isn": held.opening.isn,
        "count": held.copies.total,
        "first_packet": held.first_packet,
        "first_ns": held.first_ns,
    }


cdef object live_record(Core* core, const PacketRef* packet, list files, list interfaces):
    """The record that a packet's ends, or those that an ICMP error quotes, have now; None if there is none.

    Returns
    -------
    dict with ``row``; ``phase``, which names the running deadline; ``attempt``: the handshake is not complete;
    ``answered``: an acceptable SYN-ACK was seen; ``held``: the SYN that is held beside the record; and per end, under
    ``client`` and ``server``: its ISN and whether that was acknowledged, highest sequence end (``nxt``), highest
    acknowledgement, last and largest window (bytes), sequence number of its first FIN and whether that was acknowledged,
    holes, and the sum of the RTT samples between the tap and this end (ns). None: not known.
    """
    cdef Segment segment
    cdef Tunnel tunnel
    cdef Key key
    cdef Sink sink
    cdef uint32_t number
    cdef Flow* flow
    cdef Facts* facts
    cdef int client
    cdef int verdict
    segment.quoted = 0
    verdict = decode(packet, &segment, &tunnel, core.config.verify_checksums)
    if verdict != VD_SEGMENT and not (verdict == VD_ICMP_ERROR and segment.quoted):
        return None
    key_of(&segment, core.config.key_vlan, core.config.key_tunnel, core.config.seed, &key)
    number = table_find(core, &key)
    if number == 0:
        return None
    flow = flow_of(core, number)
    facts = facts_of(core, number)
    client = client_end(flow)
    memset(&sink, 0, sizeof(Sink))
    try:
        sink_open(&sink, _NAMES, _KINDS, 1, True)
        put_interim_row(&sink, core, number)
        row = _row(&sink, files, interfaces)
    finally:
        sink_close(&sink)
    return {
        "row": row,
        "phase": _PHASES[flow.phase],
        "attempt": bool(flow.marks & FM_ATTEMPT),
        "answered": bool(facts.marks & FF_SYNACK),
        "held": _held(core, flow, facts),
        "client": _end(core, flow, facts, client),
        "server": _end(core, flow, facts, 1 - client),
    }
