"""Segments that go on in order, and yet are not usual ones: the rules must see them."""

from __future__ import annotations

from dialogue import Dialogue, write_pcap
from rows import compare, fast


def test_in_order_but_beyond_the_window(tmp_path):
    """The window is 500 bytes and nothing is acknowledged: the segment at 600 is odd, and the next one goes on from it."""
    d = Dialogue()
    d.b.window = 500
    d.handshake()
    for _ in range(10):
        d.data(d.a, 100)
    path = write_pcap(tmp_path / "x.pcap", d.packets)
    assert compare([path]) == []
    ((row,), _, _) = fast([path])
    assert (row["odd_segments"], row["client_payload_bytes"], row["client_unique_bytes"]) == (1, 1000, 900)
