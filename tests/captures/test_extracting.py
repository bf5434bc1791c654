"""`synfin extract` on real captures: each record that is written alone is the same record again."""

from __future__ import annotations

from ipaddress import ip_address
from itertools import pairwise

import pytest

import extraction
from corpus import ROOT, captures, needs_captures
from synfin.cli.main import main
from synfin.settings import Selection

pytestmark = [needs_captures, pytest.mark.slow]
RECORDS = 6


def telling(flows: list[dict]) -> list[dict]:
    """Some records of a capture, those first whose packets are hardest to tell from another record's."""
    return sorted(
        flows, key=lambda row: (row["end_reason"] != "reuse", -row["odd_syns"], -row["syn_count"], row["flow_id"])
    )[:RECORDS]


def usable() -> list[str]:
    return [row["path"] for row in captures() if int(row["bytes"]) < 4_000_000 and not row["format"].endswith(".zst")]


@pytest.mark.parametrize("path", usable())
def test_records_come_back(path, tmp_path, capfd):
    path = ROOT / path
    flows, stats = extraction.track(path)
    if not flows:
        pytest.skip("no connections")
    whole = extraction.packets(path)
    in_order = all(
        a[0] is not None and b[0] is not None and a[0] <= b[0] <= a[0] + 3600 * 10**9 for a, b in pairwise(whole)
    )
    differing = {}
    for row in telling(flows):
        out = tmp_path / "one.pcapng"
        with pytest.raises(SystemExit):
            main(["extract", str(path), "--flow", str(row["flow_id"]), "-o", str(out)])
        found = extraction.packets(out)
        # A capture that holds a packet twice can begin two records with it, which then share their flow_id.
        same = [other for other in flows if other["flow_id"] == row["flow_id"]]
        assert len(found) == sum(other["client_packets"] + other["server_packets"] for other in same)
        assert extraction.is_part([packet[1:] for packet in found], [packet[1:] for packet in whole])
        # Where the clock ran ahead of a record's own packets, what it does to them is not in the extract.
        if in_order and len(same) == 1:
            assert extraction.is_part(found, whole)
            extraction.add_clock(out, stats["clock_ns"])
            (again,), _ = extraction.track(out)
            if wrong := extraction.differing(row, again):
                differing[row["flow_id"]] = wrong
    assert differing == {}


@pytest.mark.parametrize("path", usable())
def test_all_clients_together_hold_every_packet_once(path):
    flows, stats = extraction.track(ROOT / path)
    counts = {
        ip: extraction.count(ROOT / path, Selection(client=(ip_address(ip).packed, None)))
        for ip in {row["client_ip"] for row in flows}
    }
    assert sum(records for records, _ in counts.values()) == len(flows)
    assert sum(packets for _, packets in counts.values()) == stats["packets_in_records"]
