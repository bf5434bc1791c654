"""Rows worked out by hand from the contract: openings, closes, new records on an old key."""

from observed import expect, flow, flows, result

from dialogue import MS, SECOND, START, Dialogue, merge, options
from synfin.schema import FLOWS


def at(milliseconds: int) -> int:
    return START + milliseconds * MS


def test_a_whole_connection_with_a_four_way_close():
    d = Dialogue(a_isn=2**32 - 60)  # the client's sequence numbers wrap in its data
    d.a.options = options(mss=1460, scale=7, sack=True, ts=(1, 0))
    d.b.options = options(mss=1400, scale=2, ts=(9, 1))
    d.handshake()
    d.data(d.a, 100)
    d.ack(d.b)
    d.data(d.b, 300)
    d.ack(d.a, step=20 * MS)
    d.close()
    row = flow(d)
    assert list(row) == [column.name for column in FLOWS]
    expect(row, first_seen=at(10), last_seen=at(120), duration_ns=110 * MS, direction="syn", first_packet=1)
    expect(row, client_ip="10.0.0.1", client_port=40000, server_ip="10.0.0.2", server_port=80, ip_version=4)
    expect(row, handshake="complete", syn_first=at(10), syn_count=1, synack_first=at(20), handshake_done=at(30))
    expect(row, rtt_server_ns=10 * MS, rtt_client_ns=10 * MS, rtt_handshake_ns=20 * MS, syn_backoff_ns=0)
    expect(row, client_isn=2**32 - 60, client_mss=1460, client_window_scale=7, client_sack_permitted=True)
    expect(row, server_mss=1400, server_window_scale=2, server_sack_permitted=False, server_timestamps=True)
    expect(
        row, client_option_kinds=1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 8, client_ttl=64, client_dont_fragment=True
    )
    expect(row, close="fin_4way", closer="client", client_fin=at(90), server_fin=at(110), fin_rtt_ns=10 * MS)
    expect(row, half_closed_ns=20 * MS, close_duration_ns=30 * MS, end_reason="fin", packets_after_close=0)
    expect(row, client_state="TIME-WAIT", server_state="CLOSED", time_wait_side="client", time_wait_start=at(120))
    expect(row, time_wait_end=None)  # it lasts when the input ends
    expect(row, client_packets=6, client_payload_bytes=100, client_unique_bytes=100, client_missing_bytes=0)
    expect(row, client_pure_acks=3, server_pure_acks=2, server_unique_bytes=300, client_first_payload=at(40))
    expect(row, server_first_payload=at(60), first_response_ns=20 * MS)
    expect(row, server_rtt_samples=1, server_rtt_min_ns=10 * MS, client_rtt_samples=1, client_rtt_mean_ns=20 * MS)


def test_three_way_close_and_payload_after_the_fin():
    d = Dialogue().handshake()
    d.fin(d.b)
    d.fin(d.a, 7)
    d.ack(d.b)
    row = flow(d)
    expect(row, close="fin_3way", closer="server", payload_bytes_after_fin=7, time_wait_side="server")
    expect(row, client_state="CLOSED", server_state="TIME-WAIT", half_closed_ns=10 * MS, fin_rtt_ns=10 * MS)


def test_a_close_whose_first_two_fins_the_tap_swapped():
    d = Dialogue().handshake()
    d.fin(d.a)
    d.fin(d.b)
    d.ack(d.a)
    d.packets[3], d.packets[4] = d.packets[4], d.packets[3]
    row = flow(d)
    expect(row, close="fin_3way", closer="client", client_state="TIME-WAIT", server_state="CLOSED", fin_rtt_ns=None)


def test_one_fin():
    d = Dialogue().handshake()
    d.fin(d.a)
    expect(flow(d), close="fin_unanswered", client_state="FIN-WAIT-1", server_state="ESTABLISHED")
    d.ack(d.b)
    expect(
        flow(d), close="half_closed", client_state="FIN-WAIT-2", server_state="CLOSE-WAIT", end_reason="end_of_input"
    )


def test_the_acknowledgement_of_a_fin_passes_the_tap_before_the_fin():
    d = Dialogue().handshake()
    d.fin(d.a)
    d.ack(d.b)
    d.packets[3], d.packets[4] = d.packets[4], d.packets[3]
    expect(flow(d), close="half_closed", odd_segments=0, client_state="FIN-WAIT-2", server_state="CLOSE-WAIT")


def test_refused_and_retried_with_the_same_isn():
    d = Dialogue()
    d.syn(d.a)
    d.rst(d.b, extra="A", seq=0, ttl=200)
    row = flow(d)
    expect(row, handshake="refused", close=None, end_reason="rst", rst_by="server", rst_ttl=200, rst_seen=at(20))
    expect(row, client_state="CLOSED", server_state="LISTEN", rtt_server_ns=None, packets_after_close=0)
    d.syn(d.a)
    d.wait(80 * SECOND)
    other = Dialogue(a_port=1, start=d.now)
    other.syn(other.a)
    row = next(row for row in result(merge(d, other)).flows if row["client_port"] == 40000)
    expect(row, handshake="refused", syn_count=2, end_reason="attempt_timeout", client_state="SYN-SENT")


def test_a_rst_that_does_not_acknowledge_the_syn_refuses_nothing():
    d = Dialogue()
    d.syn(d.a)
    d.rst(d.b, extra="A", ack=d.a.isn)
    d.rst(d.b)
    expect(flow(d), handshake="pending", rst_rejected=2, rst_by=None, client_state="SYN-SENT")


def test_unanswered_and_half_open_by_deadline_and_by_reuse():
    d = Dialogue()
    d.syn(d.a)
    d.reborn(a_isn=7000, b_isn=8000)
    d.syn(d.a)
    d.synack(d.b)
    d.reborn(a_isn=9000, b_isn=8000)
    d.syn(d.a, step=74 * SECOND)
    rows = flows(d)
    assert [(row["handshake"], row["end_reason"]) for row in rows] == [
        ("unanswered", "reuse"), ("half_open", "reuse"), ("pending", "end_of_input"),
    ]  # fmt: skip
    d.syn(d.a, step=75 * SECOND)
    assert [row["end_reason"] for row in flows(d)][2:] == ["attempt_timeout", "end_of_input"]


def test_abort_and_reset_after_fin():
    d = Dialogue().handshake()
    d.data(d.a, 10)
    d.rst(d.b)
    row = flow(d)
    expect(row, close="rst", close_duration_ns=0, end_reason="rst", client_state="CLOSED", server_state="CLOSED")
    d = Dialogue().handshake()
    d.fin(d.a)
    d.rst(d.b)
    d.ack(d.a)
    row = flow(d)
    expect(row, close="rst_after_fin", closer="client", close_duration_ns=10 * MS, packets_after_close=1)


def test_a_rst_outside_the_window_is_rejected():
    d = Dialogue().handshake()
    d.data(d.b, 10)
    d.ack(d.a, window=1000)
    nxt = d.b.nxt
    d.rst(d.b, seq=nxt - 1)
    d.rst(d.b, seq=nxt + 1000)
    expect(flow(d), rst_rejected=2, close="open", client_state="ESTABLISHED")
    d.rst(d.b, seq=nxt + 999)
    expect(flow(d), rst_rejected=2, close="rst")


def test_time_wait_ends_by_reuse_reset_and_expiry():
    d = Dialogue().handshake().close()
    d.reborn(a_isn=50_000, b_isn=60_000)
    d.syn(d.a)
    old, new = flows(d)
    expect(old, time_wait_end="reused", end_reason="fin")
    expect(new, handshake="pending", client_isn=50_000)
    d = Dialogue().handshake().close()
    d.rst(d.b)
    expect(flow(d), time_wait_end="reset", client_state="CLOSED", close="fin_4way", rst_by="server", end_reason="fin")
    d = Dialogue().handshake().close()
    d.syn(d.a, step=60 * SECOND)
    assert [row["time_wait_end"] for row in flows(d)] == ["expired", None]


def test_an_old_duplicate_syn_in_time_wait_moves_nothing():
    d = Dialogue().handshake().close()
    d.syn(d.a)
    expect(flow(d), odd_syns=1, syn_count=1, client_state="TIME-WAIT", packets_after_close=1)


def test_a_held_syn_is_proven_by_the_peer_s_synack():
    d = Dialogue().handshake()
    d.reborn(a_isn=90_000, b_isn=70_000)
    d.syn(d.a, 5)
    d.syn(d.a, 5)
    d.synack(d.b, ack=90_006)
    old, new = flows(d)
    expect(old, end_reason="reuse", odd_syns=0, client_packets=2, last_seen=at(30), client_payload_bytes=0)
    expect(new, syn_count=2, handshake="pending", first_packet=4, first_seen=at(40), fast_open="data_accepted")
    expect(new, client_payload_bytes=10, client_unique_bytes=5, syn_payload_bytes=5, client_retransmitted_segments=0)


def test_a_held_syn_is_proven_by_its_sender_or_refused():
    for proof in ("ack", "rst"):
        d = Dialogue().handshake()
        d.reborn(a_isn=90_000, b_isn=70_000)
        d.syn(d.a)
        if proof == "ack":
            d.ack(d.a)
        else:
            d.rst(d.b, extra="A")
        handshake = flows(d)[1]["handshake"]
        assert handshake == {"ack": "complete", "rst": "refused"}[proof]


def test_an_unproven_held_syn_is_odd_and_changes_nothing():
    d = Dialogue().handshake()
    d.syn(d.a, seq=90_000)
    d.syn(d.a, seq=90_000)
    d.syn(d.a, seq=95_000)
    d.data(d.a, 10, seq=1001)
    expect(flow(d), odd_syns=3, client_packets=6, syn_count=1, client_state="ESTABLISHED", last_seen=at(70))


def test_an_opening_of_which_only_one_direction_was_captured():
    d = Dialogue()
    d.syn(d.a)
    d.synack(d.b, captured=False)
    d.ack(d.a)
    d.data(d.a, 10)
    row = flow(d)
    expect(row, handshake="complete", handshake_done=at(30), rtt_server_ns=None, rtt_client_ns=None)
    expect(row, client_state="ESTABLISHED", server_state="ESTABLISHED", server_isn=None, client_window_scale=None)


def test_a_server_s_data_proves_the_handshake():
    d = Dialogue()
    d.syn(d.a)
    d.synack(d.b)
    d.ack(d.a, captured=False)
    d.data(d.b, 10)
    expect(flow(d), handshake="complete", handshake_done=None, rtt_server_ns=10 * MS, rtt_client_quality="none")


def test_midstream_guesses_its_direction_and_a_late_syn_corrects_it():
    d = Dialogue(a_port=50_001, b_port=40_000)
    d.ack(d.a, seq=d.a.isn + 1, ack=7)
    expect(flow(d), handshake="not_seen", direction="first_packet", client_port=50_001, client_state="ESTABLISHED")
    d = Dialogue(a_port=50_001, b_port=20_001)
    d.ack(d.b, seq=3, ack=d.a.isn + 1)
    expect(flow(d), direction="high_port", client_port=50_001, server_packets=1)
    d = Dialogue(a_port=80, b_port=40_000)
    d.ack(d.b, seq=3, ack=d.a.isn + 1)
    expect(flow(d), direction="server_port", client_port=40_000)
    d.syn(d.a)
    row = flow(d)
    expect(
        row, direction="syn", client_port=80, handshake="complete", handshake_done=None, syn_count=1, rtt_server_ns=None
    )


def test_a_resent_syn_is_clean_matched_or_ambiguous():
    def retried(*, echo: int | None, values: tuple[int, ...]) -> dict:
        d = Dialogue()
        for value in values:
            d.syn(d.a, opts=options(ts=(value, 0)) if echo is not None else b"", step=SECOND)
        d.synack(d.b, opts=options(ts=(1, echo)) if echo is not None else b"")
        return flow(d)

    expect(retried(echo=None, values=(1,)), rtt_server_quality="clean", rtt_server_ns=10 * MS)
    expect(retried(echo=None, values=(1, 2)), rtt_server_quality="ambiguous", rtt_server_ns=10 * MS)
    row = retried(echo=1, values=(1, 2))
    expect(row, rtt_server_quality="matched", rtt_server_ns=SECOND + 10 * MS, syn_backoff_ns=0)
    expect(retried(echo=2, values=(2, 2)), rtt_server_quality="ambiguous", syn_backoff_ns=SECOND)
    many = tuple(range(1, 11))
    expect(retried(echo=3, values=many), rtt_server_quality="matched", rtt_server_ns=7 * SECOND + 10 * MS)
    expect(
        retried(echo=2, values=many), rtt_server_quality="ambiguous", rtt_server_ns=10 * MS
    )  # the last 8 are remembered


def test_a_completing_segment_with_payload_makes_the_client_s_rtt_ambiguous():
    d = Dialogue()
    d.syn(d.a)
    d.synack(d.b)
    d.data(d.a, 3)
    expect(flow(d), rtt_client_ns=10 * MS, rtt_client_quality="ambiguous", handshake="complete")


def test_the_synack_that_is_acknowledged_names_the_server_s_isn():
    d = Dialogue()
    d.syn(d.a)
    d.synack(d.b, seq=111)
    d.synack(d.b, seq=222)
    d.ack(d.a, ack=112)
    expect(flow(d), synack_isn_variants=2, server_isn=111, rtt_client_ns=20 * MS, server_missing_bytes=0)


def test_a_split_handshake():
    d = Dialogue()
    d.syn(d.a)
    d.ack(d.b, seq=5001, ack=1001)
    d.syn(d.b)
    d.synack(d.a)
    d.ack(d.b)
    row = flow(d)
    expect(row, split_open=True, simultaneous_open=False, handshake="complete", client_state="ESTABLISHED")
    expect(row, server_state="ESTABLISHED", odd_segments=0, synack_count=1)
