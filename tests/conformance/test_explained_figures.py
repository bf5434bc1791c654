"""`synfin explain` shows the states of RFC 9293's figures after each segment."""

from __future__ import annotations

import pytest
from test_rfc9293_figures import FIGURES, play

from dialogue import write_pcap
from explained import explained


@pytest.mark.parametrize(("before", "figure"), [f[1:3] for f in FIGURES], ids=[f[0] for f in FIGURES])
def test_states_after_each_segment(tmp_path, before, figure):
    d = before()
    skip = len(d.packets)
    script = play(d, figure)
    shown = {}
    for record in explained([write_pcap(tmp_path / "in.pcap", d.packets)]):
        by_a = (record.row["client_ip"], record.row["client_port"]) == (d.a.ip, d.a.port)
        for facts in record.facts:
            states = facts["client_state"], facts["server_state"]
            shown[facts["packet"]] = states if by_a else states[::-1]
    assert [shown[number] for number in range(skip + 1, len(d.packets) + 1)] == [line.tap for line in script]
