"""What two real kernels count of a transfer over a bad wire, beside synfin's row of the same packets.

The client sends, the server receives. The tap stands beside one of both: that host's counters are about the packets which the
tap has seen. Where a kernel's counter has another definition than the column, its rule is applied to the tap's packets.
"""

from __future__ import annotations

import random
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from hosts import Hosts, any_data, receive
from wire import Rule, Segment, parse, write_pcap

import synfin

SIZE, SEGMENT, DELAY = 150_000, 536, 0.004
CLOCKS_APART = 3_000_000  #: nanoseconds by which the tap's smallest round trip may differ from the kernel's
MOST_HOLES = 4  #: that a row keeps for an end
_SOL_TCP, _TCP_MAXSEG = 6, 2


class Opinion(NamedTuple):
    """One figure of one transfer: synfin's, the kernel's, and what the kernel's counter means where it is another thing."""

    trouble: str
    tap: str
    what: str
    ours: int
    kernel: int
    why: str = ""
    by_its_rule: int | None = None  #: the kernel's rule, applied to the packets of the tap
    tolerance: int = 0

    @property
    def agrees(self) -> bool:
        """Equal, or exactly what the kernel's rule gives for the same packets."""
        expected = self.ours if self.by_its_rule is None else self.by_its_rule
        return abs(expected - self.kernel) <= self.tolerance


def troubles(seed: int = 3) -> dict[str, tuple[Rule, ...]]:
    """Rules for the wire, by what they do to the client's segments with payload."""
    chance = random.Random(seed)

    def some(share: float) -> Any:
        return lambda segment: any_data(segment) and chance.random() < share

    lose, hold, copy = (
        {"match": some(0.03), "drop": True}, {"match": some(0.03), "delay": 0.003}, {"match": some(0.03), "copies": 1},
    )  # fmt: skip
    kinds = {
        "none": (),
        "loss": (lose,),
        "reordering": (hold,),
        "duplication": (copy,),
        "all three": (lose, hold, copy),
    }
    return {name: tuple(Rule("client", **one) for one in some_rules) for name, some_rules in kinds.items()}


def all_opinions() -> list[Opinion]:
    """Every trouble, seen from either end. Raises netns.NotAllowed where there are no namespaces."""
    return [one for tap in ("client", "server") for name in troubles() for one in opinions(name, tap)]


def opinions(trouble: str, tap: str) -> list[Opinion]:
    """One upload: what the kernel beside the tap says of it, and what synfin does."""
    with Hosts(tap=tap, delay=DELAY, rules=troubles()[trouble]) as hosts:
        hosts.sysctl(
            "ipv4/tcp_timestamps", 0
        )  # else the kernel drops late segments by their timestamps (RFC 7323 section 5)
        listener = hosts.listen(80)
        client = hosts.socket("client")
        client.setsockopt(_SOL_TCP, _TCP_MAXSEG, SEGMENT)
        client.connect((hosts.server_ip, 80))
        server = hosts.accept(listener)
        client.sendall(b"d" * SIZE)
        assert len(receive(server, SIZE)) == SIZE
        hosts.wire.settle(0.3)
        host = hosts.client if tap == "client" else hosts.server
        info, counters = socket_info(host.run(["ss", "-tinH", "state", "established"])), host.counters()
        hosts.wire.close()
        packets = list(hosts.wire.packets)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "wire.pcap"
        write_pcap(path, packets)
        (row,) = synfin.scan(path, profile="lakehouse").to_pylist()
    from_client = [one for _, frame in packets if (one := from_port_80(frame)) and one.sender == "client"]
    return [
        Opinion(trouble, tap, *one)
        for one in (sent if tap == "client" else received)(row, info, counters, from_client)
    ]  # fmt: skip


def socket_info(text: str) -> dict[str, float]:
    """The numbers that ``ss -i`` prints as name:number; of two with a slash the first."""
    return {name: float(number) for name, number in re.findall(r"(\w+):([\d.]+)", text.split("\n", 1)[-1])}


def from_port_80(frame: bytes) -> Segment | None:
    """A segment of the transfer with its sender by its port."""
    segment = parse("client", frame)
    return segment and segment._replace(sender="server" if segment.source_port == 80 else "client")


def sent(row: dict, info: dict[str, float], counters: dict[str, int], _: list[Segment]) -> Iterable[tuple]:
    """The sender's kernel."""
    resent = row["client_retransmitted_segments"] + row["syn_count"] - 1
    acknowledged = row["client_unique_bytes"]
    yield "packets sent (`segs_out`)", row["client_packets"], int(info["segs_out"])
    yield "packets received (`segs_in`)", row["server_packets"], int(info["segs_in"])
    yield "resends (`TcpRetransSegs`)", resent, counters["TcpRetransSegs"]
    yield "bytes resent (`bytes_retrans`)", row["client_retransmitted_bytes"], int(info.get("bytes_retrans", 0))
    yield (
        "bytes acknowledged (`bytes_acked`)", acknowledged, int(info["bytes_acked"]), "the kernel counts the SYN as one",
        acknowledged + 1,
    )  # fmt: skip
    yield (
        "smallest round trip, SYN or data, ns (`minrtt`)", min(row["rtt_server_ns"], row["server_rtt_min_ns"]),
        int(info["minrtt"] * 1_000_000),
        "to 3 ms: the tap stands on the wire, and the kernel times more segments, some of them in whole ms", None, CLOCKS_APART,
    )  # fmt: skip


def received(row: dict, info: dict[str, float], counters: dict[str, int], segments: list[Segment]) -> Iterable[tuple]:
    """The receiver's kernel."""
    waiting, repeated, holes = by_the_receiver(segments)
    forgets = (
        "an end keeps at most 4 holes, and here were more: the lowest is taken for seen" if holes > MOST_HOLES else ""
    )
    told = counters["TcpExtTCPDSACKOldSent"] + counters["TcpExtTCPDSACKOfoSent"]
    yield (
        "packets sent (`segs_out`)", row["server_packets"], int(info["segs_out"]),
        "the SYN-ACK leaves before the server's socket is there", row["server_packets"] - 1,
    )  # fmt: skip
    yield "packets received (`segs_in`)", row["client_packets"], int(info["segs_in"])
    yield (
        "bytes received (`bytes_received`)", row["client_unique_bytes"], int(info["bytes_received"]),
        forgets, SIZE if forgets else None,
    )  # fmt: skip
    yield (
        "out of order (`TcpExtTCPOFOQueue`)", row["client_out_of_order_segments"], counters["TcpExtTCPOFOQueue"],
        "the kernel counts what waits behind a hole, synfin what fills it", waiting,
    )  # fmt: skip
    yield (
        "repeated (`TcpExtTCPDSACKOldSent` + `OfoSent`)", row["client_retransmitted_segments"], told,
        forgets, repeated if forgets else None,
    )  # fmt: skip


def by_the_receiver(segments: list[Segment]) -> tuple[int, int, int]:
    """How many segments with payload came behind a hole, how many brought nothing new, and the most holes at a time."""
    held: set[int] = set()  # places of bytes beyond the next one that is wanted
    first = segments[0].end  # of the SYN
    wanted, waiting, repeated, holes = 0, 0, 0, 0
    starts: set[int] = set()
    for segment in segments:
        if not segment.payload:
            continue
        start = (segment.seq - first + 2**31) % 2**32 - 2**31
        places = set(range(max(start, wanted), start + segment.payload)) - held
        waiting += start > wanted
        repeated += not places
        held |= places
        starts.add(start)
        while wanted in held:
            held.remove(wanted)
            wanted += 1
        holes = max(holes, sum(one in held and one - 1 not in held for one in starts))
    return waiting, repeated, holes
