"""RFC 9293 Figures 6 to 13 as dialogues, and each end's state after each segment as a tap can know it.

A tap sees an end change when that end speaks, so some states change one line later than in the figures. In Figures 9 to
11 it cannot know that an end has rebooted or that a SYN is an old duplicate.
"""

from observed import expect, flow, flows, states

from dialogue import Dialogue

OPEN = ("ESTABLISHED", "ESTABLISHED")


def between_sockets() -> Dialogue:
    return Dialogue(a_isn=100, b_isn=300)


def established() -> Dialogue:
    """Where Figures 9 and 10 begin: A has sent up to 100, B up to 300."""
    d = Dialogue(a_isn=98, b_isn=298).handshake()
    d.data(d.a, 1)
    d.data(d.b, 1)
    d.ack(d.a)
    assert (d.a.nxt, d.b.nxt) == (100, 300)
    return d


def test_figure_6_three_way_handshake():
    d = between_sockets()
    d.syn(d.a, seq=100)
    d.synack(d.b, seq=300, ack=101)
    d.ack(d.a, seq=101, ack=301)
    d.data(d.a, 10, seq=101, ack=301)
    assert states(d) == [("SYN-SENT", "LISTEN"), ("SYN-SENT", "SYN-RECEIVED"), OPEN, OPEN]
    expect(flow(d), handshake="complete", simultaneous_open=False, client_isn=100, server_isn=300)


def test_figure_7_simultaneous_open():
    d = between_sockets()
    d.syn(d.a, seq=100)
    d.syn(d.b, seq=300)
    d.synack(d.a, seq=100, ack=301)
    d.synack(d.b, seq=300, ack=101)
    assert states(d) == [
        ("SYN-SENT", "LISTEN"),
        ("SYN-SENT", "SYN-SENT"),
        ("SYN-RECEIVED", "SYN-SENT"),  # its SYN is not acknowledged before B answers
        OPEN,
    ]
    expect(flow(d), handshake="complete", simultaneous_open=True, split_open=False, synack_count=2, client_port=40000)


def test_figure_7_with_the_acknowledgements_in_the_other_order():
    d = between_sockets()
    d.syn(d.a, seq=100)
    d.syn(d.b, seq=300)
    d.synack(d.b, seq=300, ack=101)
    d.synack(d.a, seq=100, ack=301)
    assert states(d)[2:] == [("SYN-SENT", "SYN-RECEIVED"), OPEN]


def test_figure_8_old_duplicate_syn_with_the_tap_at_a():
    d = between_sockets()
    d.syn(d.a, seq=100)
    d.synack(d.b, seq=300, ack=91)  # answers a duplicate that this tap did not see
    d.rst(d.a, seq=91)
    d.synack(d.b, seq=400, ack=101)
    d.ack(d.a, seq=101, ack=401)
    assert states(d) == [("SYN-SENT", "LISTEN")] * 3 + [("SYN-SENT", "SYN-RECEIVED"), OPEN]
    row = flow(d)
    expect(row, handshake="complete", odd_syns=1, rst_rejected=1, client_rst_count=1, rst_by=None, synack_count=1)
    expect(row, server_isn=400, rtt_server_ns=None, rtt_server_quality="none")  # A had sent more than its SYN


def test_figure_8_old_duplicate_syn_with_the_tap_at_b():
    d = between_sockets()
    d.syn(d.a, seq=90)
    d.synack(d.b, seq=300, ack=91)
    d.rst(d.a, seq=91)
    d.syn(d.a, seq=100)
    d.synack(d.b, seq=400, ack=101)
    d.ack(d.a, seq=101, ack=401)
    assert states(d)[:3] == [("SYN-SENT", "LISTEN"), ("SYN-SENT", "SYN-RECEIVED"), ("CLOSED", "LISTEN")]
    assert states(d)[3:] == [("SYN-SENT", "LISTEN"), ("SYN-SENT", "SYN-RECEIVED"), OPEN]
    old, new = flows(d)
    expect(old, handshake="aborted", rst_by="client", close=None, end_reason="rst")
    expect(new, handshake="complete", client_isn=100, rtt_server_quality="clean")


def test_figure_9_half_open_connection_discovery():
    d = established()
    d.syn(d.a, seq=400)
    d.ack(d.b, seq=300, ack=100)
    d.rst(d.a, seq=100)
    d.syn(d.a, seq=400)
    assert states(d)[6:] == [
        OPEN,  # the SYN is held: B challenges it
        OPEN,
        ("CLOSED", "CLOSED"),
        ("SYN-SENT", "LISTEN"),  # it comes again after the record has finished: a new record
    ]
    old, new = flows(d)
    expect(old, close="rst", rst_by="client", end_reason="rst", odd_syns=0, client_packets=5, packets_after_close=0)
    expect(new, handshake="pending", syn_count=2, client_packets=2, first_packet=7, client_isn=400)


def test_figure_10_active_side_causes_half_open_connection_discovery():
    d = established()
    d.data(d.b, 10, seq=300, ack=100)
    d.rst(d.a, seq=100)
    assert states(d)[-2:] == [OPEN, ("CLOSED", "CLOSED")]
    expect(flow(d), close="rst", rst_by="client", server_missing_bytes=0, server_unique_bytes=11)


def test_figure_10_in_an_attempt_aborts_nothing():
    """The ACK of an old life and the RST that answers it leave the new attempt alone."""
    d = between_sockets()
    d.syn(d.a, seq=400)
    d.data(d.b, 10, seq=300, ack=100)
    d.rst(d.a, seq=100)
    d.syn(d.a, seq=400)
    d.synack(d.b, seq=900, ack=401)
    d.ack(d.a, seq=401, ack=901)
    assert states(d) == [("SYN-SENT", "LISTEN")] * 4 + [("SYN-SENT", "SYN-RECEIVED"), OPEN]
    expect(flow(d), handshake="complete", odd_segments=1, rst_rejected=1, syn_count=2, server_unique_bytes=0)


def test_figure_11_old_duplicate_syn_resets_two_passive_sockets():
    d = between_sockets()
    d.syn(d.a, seq=70)
    d.synack(d.b, seq=300, ack=71)
    d.rst(d.a, seq=71)
    assert states(d) == [("SYN-SENT", "LISTEN"), ("SYN-SENT", "SYN-RECEIVED"), ("CLOSED", "LISTEN")]
    expect(flow(d), handshake="aborted", server_state="LISTEN", client_state="CLOSED")


def test_figure_12_normal_close():
    d = established()
    d.fin(d.a, seq=100, ack=300)
    d.ack(d.b, seq=300, ack=101)
    d.fin(d.b, seq=300, ack=101)
    d.ack(d.a, seq=101, ack=301)
    assert states(d)[6:] == [
        ("FIN-WAIT-1", "ESTABLISHED"),
        ("FIN-WAIT-2", "CLOSE-WAIT"),
        ("FIN-WAIT-2", "LAST-ACK"),
        ("TIME-WAIT", "CLOSED"),
    ]
    expect(flow(d), close="fin_4way", closer="client", time_wait_side="client")


def test_figure_13_simultaneous_close():
    d = established()
    d.fin(d.a, seq=100, ack=300)
    d.fin(d.b, seq=300, ack=100)
    d.ack(d.a, seq=101, ack=301)
    d.ack(d.b, seq=301, ack=101)
    assert states(d)[6:] == [
        ("FIN-WAIT-1", "ESTABLISHED"),
        ("FIN-WAIT-1", "FIN-WAIT-1"),
        ("CLOSING", "FIN-WAIT-2"),
        ("TIME-WAIT", "TIME-WAIT"),
    ]
    expect(flow(d), close="fin_simultaneous", closer="both", time_wait_side="both", close_duration_ns=30_000_000)


def test_figure_13_with_the_acknowledgements_in_the_other_order():
    d = established()
    d.fin(d.a, seq=100, ack=300)
    d.fin(d.b, seq=300, ack=100)
    d.ack(d.b, seq=301, ack=101)
    d.ack(d.a, seq=101, ack=301)
    assert states(d)[8:] == [("FIN-WAIT-2", "CLOSING"), ("TIME-WAIT", "TIME-WAIT")]


def test_every_segment_twice_ends_in_the_same_states():
    d = established()
    d.close()
    doubled = established()
    doubled.close()
    doubled.packets = [packet for packet in d.packets for _ in range(2)]
    assert states(doubled)[1::2] == states(d)
