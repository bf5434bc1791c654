"""More connections at once than the cap lets live."""

from __future__ import annotations

from dialogue import MS, SECOND, START, Captured, Dialogue, merge
from scenarios import scenario


def _from(port: int, after: int = 0) -> Dialogue:
    return Dialogue(a_port=port, start=START + after)


def _syns(count: int, after: int) -> list[Captured]:
    """SYNs from as many ports, 10 ms apart, that nobody answers."""
    dialogues = [_from(50_000 + number, after + number * 10 * MS) for number in range(count)]
    return [d.syn(d.a) for d in dialogues]


_EVICTED = {"handshake": "pending", "end_reason": "evicted", "syn_count": 1}
_LEFT = {"handshake": "pending", "end_reason": "end_of_input", "syn_count": 1}


@scenario({"handshake": "complete", "client_port": 40000, "client_packets": 4, "end_reason": "end_of_input"},
          {"handshake": "complete", "client_port": 40001, "client_packets": 4, "end_reason": "end_of_input"},
          *[_EVICTED] * 6, *[_LEFT] * 2, max_flows=4)  # fmt: skip
def syn_flood_at_the_cap():
    """Eight SYNs of a flood against two open connections at a cap of four: the flood takes its own places, the oldest
    first. What was sent last on the open connections came before the flood, and they live on."""
    a, b = _from(40_000), _from(40_001, 5 * MS)
    for d in (a, b):
        d.handshake()
    flood = _syns(8, SECOND)
    for d in (a, b):
        d.data(d.a, 10, step=2 * SECOND)
        d.ack(d.b)
        d.ack(d.a)
    return sorted([*a.packets, *b.packets, *flood], key=lambda packet: packet.time_ns)


@scenario({"handshake": "complete", "close": "fin_4way", "end_reason": "fin", "client_state": "TIME-WAIT",
           "time_wait_side": "client", "time_wait_end": None},
          {"handshake": "complete", "client_port": 40001, "end_reason": "end_of_input"},
          {"handshake": "complete", "client_port": 40002, "end_reason": "end_of_input"}, max_flows=2)  # fmt: skip
def a_lingering_connection_at_the_cap():
    """The third connection takes the place of the closed one, though an open one has been silent for longer: a
    connection that is over keeps its own reason, and its TIME-WAIT had not ended."""
    closed, silent, third = _from(40_000), _from(40_001, 1 * MS), _from(40_002, 5 * SECOND)
    closed.handshake()
    silent.handshake()
    closed.wait(SECOND)
    closed.close()
    return merge(closed, silent, third.handshake())


@scenario({"handshake": "not_seen", "client_port": 40000, "end_reason": "evicted", "close": "open", "server_packets": 0},
          {"handshake": "pending", "client_port": 40001, "end_reason": "evicted", "synack_count": 1},
          {"handshake": "not_seen", "client_port": 40002, "end_reason": "end_of_input", "server_packets": 1},
          {"handshake": "complete", "client_port": 40003, "end_reason": "end_of_input"},
          {"handshake": "complete", "client_port": 40004, "end_reason": "end_of_input"}, max_flows=3)  # fmt: skip
def midstream_and_half_open_at_the_cap():
    """A connection of which one end was seen goes first, a half-open one next; one that was seen in the middle, from both
    ends, counts as open."""
    one_sided, half_open, both = _from(40_000, 2 * SECOND), _from(40_001, 3 * SECOND), _from(40_002, 3_500 * MS)
    one_sided.data(one_sided.a, 10)
    half_open.syn(half_open.a)
    half_open.synack(half_open.b)
    both.data(both.a, 10)
    both.ack(both.b)
    return merge(
        one_sided, half_open, both, _from(40_003, 4 * SECOND).handshake(), _from(40_004, 5 * SECOND).handshake()
    )


@scenario({"handshake": "complete", "end_reason": "evicted", "client_packets": 2, "close": "open"},
          {"handshake": "complete", "client_port": 40001, "end_reason": "end_of_input"},
          {"handshake": "complete", "client_port": 40002, "end_reason": "evicted"},
          {"handshake": "not_seen", "client_port": 40000, "end_reason": "end_of_input", "client_packets": 1},
          max_flows=2)  # fmt: skip
def open_connections_at_the_cap():
    """Of open connections the one that has been silent for longest goes; what it sends later begins a record in the middle, at
    whose expense another goes."""
    silent, talking, third = _from(40_000), _from(40_001, 100 * MS), _from(40_002, SECOND)
    silent.handshake()
    talking.handshake()
    third.handshake()
    talking.data(talking.a, 10, step=2 * SECOND)
    silent.data(silent.a, 10, step=4 * SECOND)
    return merge(silent, talking, third)
