"""What a held SYN offers (SPEC 3.2, 4): the first copy does, however many came after it; eight copies are remembered."""

from __future__ import annotations

import pytest

from dialogue import SECOND, Dialogue, options, write_pcap
from rows import compare, fast, order

#: What a stack offers at first, and what it falls back to when nothing answers.
FIRST = options(mss=1400, scale=7, sack=True, ts=(1000, 0), fast_open=b"", mptcp=b"\x01" * 10)
BARE = options(mss=536)


@pytest.fixture
def proven(tmp_path):
    """The row that a held SYN and so many copies of it begin, and how it was proven."""

    def run(copies: int, proof: str) -> dict:
        d = Dialogue().handshake()
        d.syn(d.a, seq=70_000, opts=FIRST, extra="EC", window=1000, ttl=60)
        d.ack(d.a, seq=2000)
        for _ in range(copies):
            d.syn(d.a, seq=70_000, opts=BARE, window=500, ttl=50)
        d.wait(SECOND // 1000)
        if proof == "syn-ack":
            d.synack(d.b, seq=80_000, ack=70_001, opts=FIRST, extra="E")
        elif proof == "rst":
            d.rst(d.b, seq=0, ack=70_001, extra="A")
        else:
            d.data(d.a, seq=70_001)
        path = write_pcap(tmp_path / "in.pcap", d.packets)
        assert compare([path]) == []
        return sorted(fast([path])[0], key=order)[1]

    return run


@pytest.mark.parametrize("proof", ["syn-ack", "rst", "sender"])
@pytest.mark.parametrize("copies", [0, 1, 7, 8, 9, 20])
def test_first_copy_makes_the_offer(proven, copies, proof):
    row = proven(copies, proof)
    agreed = proof == "syn-ack"
    assert (row["client_isn"], row["syn_count"]) == (70_000, copies + 1)
    assert row["mptcp"] == ("agreed" if agreed else "offered")
    assert row["ecn"] == ("agreed" if agreed else "offered")
    assert row["fast_open"] == "cookie_request"


@pytest.mark.parametrize("copies", [1, 8, 20])
def test_columns_of_an_unanswered_syn_are_the_first_copys(proven, copies):
    row = proven(copies, "sender")
    names = ("client_mss", "client_window_scale", "client_syn_window", "client_ttl")
    assert [row[name] for name in names] == [1400, 7, 1000, 60]
