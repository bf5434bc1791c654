"""Sequence accounts worked out by hand: holes, resends, keep-alives, duplicate ACKs, round trips."""

from observed import expect, flow

from dialogue import MS, Dialogue, options


def test_holes_out_of_order_and_missing_bytes():
    d = Dialogue().handshake()
    first = d.a.nxt
    d.data(d.a, 100)
    d.data(d.a, 100, captured=False)
    d.data(d.a, 100)  # reveals the hole
    d.data(d.a, 100, captured=False)
    d.data(d.a, 100)
    d.data(d.a, 50, seq=first + 100)  # half of the first hole
    d.ack(d.b)
    row = flow(d)
    expect(row, client_unique_bytes=350, client_out_of_order_segments=1, client_retransmitted_segments=0)
    expect(row, client_missing_bytes=150, client_payload_bytes=350)


def test_a_resend_counts_only_the_bytes_already_seen():
    d = Dialogue().handshake()
    first = d.a.nxt
    d.data(d.a, 100)
    d.data(d.a, 150, seq=first + 50)
    expect(flow(d), client_retransmitted_segments=1, client_retransmitted_bytes=50, client_unique_bytes=200)


def test_a_fifth_hole_drops_the_lowest():
    d = Dialogue().handshake()
    holes = []
    for _ in range(5):
        holes.append(d.a.nxt)
        d.data(d.a, 10, captured=False)
        d.data(d.a, 10)
    d.data(d.a, 10, seq=holes[0])
    d.data(d.a, 10, seq=holes[1])
    expect(flow(d), client_retransmitted_segments=1, client_out_of_order_segments=1, client_unique_bytes=60)


def test_keep_alives_are_neither_resends_nor_pure_acks():
    d = Dialogue().handshake()
    d.data(d.a, 10)
    d.ack(d.b)
    d.keep_alive(d.a)
    d.keep_alive(d.a, 1)
    d.ack(d.b)
    row = flow(d)
    expect(row, client_keep_alives=2, client_retransmitted_segments=0, client_pure_acks=1, client_payload_bytes=11)
    expect(row, client_unique_bytes=10, server_duplicate_acks=0)


def test_one_byte_that_was_not_acknowledged_is_a_resend():
    d = Dialogue().handshake()
    d.data(d.a, 10)
    d.keep_alive(d.a, 1)
    expect(flow(d), client_keep_alives=0, client_retransmitted_segments=1, client_retransmitted_bytes=1)


def test_duplicate_acks_need_outstanding_data_and_the_same_window():
    d = Dialogue().handshake()
    d.data(d.b, 10)
    d.ack(d.a)
    d.ack(d.a)  # nothing is outstanding
    sent = d.b.nxt
    d.data(d.b, 10)
    d.ack(d.a, ack=sent)
    d.ack(d.a, ack=sent, window=100)  # another window
    d.ack(d.a, ack=sent, window=100)
    expect(flow(d), client_duplicate_acks=2)


def test_zero_windows():
    d = Dialogue().handshake()
    d.ack(d.a, window=0)
    d.fin(d.a, window=0)
    expect(flow(d), client_zero_windows=1)


def test_round_trips_one_timed_segment_and_karn():
    d = Dialogue().handshake()
    first = d.a.nxt
    d.data(d.a, 100)
    d.data(d.a, 100)  # not timed: the first one is
    d.ack(d.b, ack=first + 99)  # not past its end
    d.ack(d.b)  # 30 ms after the timed segment
    d.data(d.a, 100)
    d.data(d.a, 100, seq=d.a.nxt - 100)  # resent: dropped
    d.ack(d.b)
    d.fin(d.a, 10)  # its end includes the FIN
    d.ack(d.b, ack=d.a.nxt - 1)
    d.ack(d.b)
    row = flow(d)
    expect(row, server_rtt_samples=2, server_rtt_min_ns=20 * MS, server_rtt_max_ns=30 * MS, server_rtt_mean_ns=25 * MS)
    expect(row, server_rtt_stddev_ns=5 * MS, client_rtt_samples=0, client_rtt_min_ns=None)


def test_a_segment_outside_the_window_is_odd_and_its_follower_shows_loss():
    d = Dialogue().handshake()
    d.a.nxt += 65_536  # one beyond the upper edge
    start = d.a.nxt
    d.data(d.a, 10)
    row = flow(d)
    expect(row, odd_segments=1, client_unique_bytes=0, client_first_payload=None, client_payload_bytes=10)
    d.data(d.a, 10)  # begins where the odd one ended
    assert d.a.nxt == start + 20
    row = flow(d)
    expect(row, odd_segments=1, client_unique_bytes=10, client_payload_bytes=20)


def test_the_edges_of_the_window_are_inside():
    d = Dialogue().handshake()
    at = d.a.nxt
    d.data(d.a, 10, seq=at + 65_535)
    d.data(d.a, 10, seq=at - 65_535 - 10)
    expect(flow(d), odd_segments=0)
    d.data(d.a, 10, seq=at - 65_535 - 11)
    expect(flow(d), odd_segments=1)


def test_the_window_is_scaled_only_if_both_offered_it():
    for server, odd in ((options(scale=3), 0), (b"", 1)):
        d = Dialogue()
        d.a.options, d.b.options = options(scale=0), server
        d.handshake()
        d.ack(d.b)
        d.data(d.a, 10, seq=d.a.nxt + 8 * 65_535)
        expect(flow(d), odd_segments=odd)
