"""What `make live-truth` makes of the kernels' states, and that it fails where something differs."""

from __future__ import annotations

import pytest
from live_truth import __main__ as command
from live_truth.gauges import Watched, greatest
from live_truth.kernel import GAUGES, Told, gauges
from live_truth.moments import Moment, Named


def test_gauges_of_pairs():
    told = gauges({
        ("a", "s"): ("ESTABLISHED", "ESTABLISHED"), ("b", "s"): ("FIN-WAIT-2", "CLOSE-WAIT"), ("c", "s"): ("TIME-WAIT", None),
        ("d", "s"): (None, "SYN-RECEIVED"), ("e", "s"): ("SYN-SENT", None), ("f", "s"): ("FIN-WAIT-2", "LAST-ACK"),
    })  # fmt: skip
    assert {name: count for name, count in told.both.items() if count} == {
        "established": 2, "fin_wait_2": 2, "close_wait": 1, "time_wait": 1, "syn_received": 1, "syn_sent": 1, "last_ack": 1,
        "connections": 5, "opening": 1, "half_open": 1, "half_closed": 1,
    }  # fmt: skip
    assert (told.client["established"], told.server["established"]) == (1, 1)


@pytest.mark.parametrize("where", ["metrics", "interval table"])
def test_a_difference_without_a_name_fails(monkeypatch, tmp_path, where, capsys):
    none = dict.fromkeys(GAUGES, 0)
    off = none | {"established": 5, "last_ack": 1}
    named = (Named("known", {"established": 5}),)
    moment = Moment("1. Moment", 0, Told({}, {}, none), named, off if where == "metrics" else none | {"established": 5})
    row = off if where == "interval table" else none | {"established": 5}
    watched = Watched([moment], [row], {"packets": 1}, (61.0, 60.2))
    assert greatest(watched) == 1
    monkeypatch.setattr("live_truth.gauges.watch", lambda *_: watched)
    monkeypatch.setattr("live_truth.__main__.become_root", lambda: None)
    assert command.main(["gauges"]) == 1
    assert "| `last_ack` |" in capsys.readouterr().out
