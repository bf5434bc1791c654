"""The core's rows of every real capture against the slow tracker's, in every column of both tables."""

from __future__ import annotations

import pytest
from corpus import ROOT, captures, needs_captures

from rows import compare

pytestmark = [needs_captures, pytest.mark.slow]

LINKS = "the slow tracker decodes no IEEE 802.2 LLC, no Cisco HDLC and no authentication header in IPv4"
#: Captures whose segments the slow tracker does not all see.
EXCEPTIONS = {
    "AlexeyVasilev+PcapFlowLab/examples__showcase__pcap_flow_lab_showcase.pcap": LINKS,
    "OISF+suricata-verify/decode-chdlc-01__hdlc-http_1tx.pcap": LINKS,
    "seladb+PcapPlusPlus/Tests__Packet++Test__PacketExamples__CiscoHDLC.pcap": LINKS,
}


def test_every_column_of_both_tables():
    """Names of skips may differ (a header cut before its protocol is known); that as many are skipped may not."""
    paths = [ROOT / row["path"] for row in captures() if not row["format"].endswith(".zst")]
    paths += sorted((ROOT / "zeek-expected").glob("*.pcap"))
    found = {}
    for path in paths:
        lines = [line for line in compare([path]) if not line.startswith("skips: ")]
        if lines and str(path.relative_to(ROOT)) not in EXCEPTIONS:
            found[str(path.relative_to(ROOT))] = lines
    assert found == {}
    assert len(paths) > 350
