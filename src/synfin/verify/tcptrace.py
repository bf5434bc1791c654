"""Runs tcptrace as a program and reads what it prints: one row per connection, and its packets where they are needed.

Three oddities of its text are undone here: microseconds without leading zeros, a maximum segment size as a signed 16-bit
number, and an IPv6 address that begins with `::` without the first of both colons.
"""

from __future__ import annotations

import calendar
import csv
import re
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from typing import Any

from synfin.verify.join import Column, same
from synfin.verify.lives import End, Life, Packet, Pair, end, pair_of
from synfin.verify.tcptrace_rules import Header, Rules
from synfin.verify.tools import TCPTRACE, ToolError, run
from synfin.verify.witness import Step

COLUMNS = (
    *same("packets payload_bytes syns", each_way=True, per_pair=True),
    Column("fin", "fin_count", "fin", True, True),
    Column("rst", "rst_count", "rst", True, True),
    *same("first_seen last_seen", each_way=False, per_pair=True),
    *same("mss window_scale sack_permitted timestamps", each_way=True),
    Column("retransmitted", "retransmitted_segments", "retransmitted", True),
    Column("out_of_order", "out_of_order_segments", "out_of_order", True),
    *same("zero_windows rtt_syn rtt_samples rtt_min rtt_max", each_way=True),
)
_COUNTS = {
    "packets": "total_packets", "payload_bytes": "actual_data_bytes", "rst": "resets_sent", "retransmitted": "rexmt_data_pkts",
    "out_of_order": "outoforder_pkts", "zero_windows": "zero_win_adv", "rtt_samples": "RTT_samples",
}  # fmt: skip
_ROUND_TRIPS = {"rtt_min": "RTT_min", "rtt_max": "RTT_max", "rtt_syn": "RTT_from_3WHS"}


def tcptrace(path: str) -> list[Life]:
    """tcptrace's connections of a capture, without their packets. Raises ToolError."""
    lines = [
        line for line in run([TCPTRACE, "-n", "-l", "-r", "--csv", path]).splitlines() if line[:1] not in ("", "#")
    ]
    if not lines or not lines[0].startswith("conn_#"):
        raise ToolError(f"tcptrace finds no TCP in {path}, or cannot read it")
    return [_life(row) for row in csv.DictReader(lines, skipinitialspace=True)]


def _life(row: dict[str, str]) -> Life:
    row = {name.strip(): (value or "").strip() for name, value in row.items() if name}
    ends = [_end(row[f"host_{side}"], row[f"port_{side}"]) for side in "ab"]
    life = Life(pair_of(*ends), row["conn_#"])
    for place, way in enumerate(("a2b", "b2a")):
        values = life.ways[place if life.pair[0] == ends[0] else 1 - place]
        values.update({ours: int(row[f"{theirs}_{way}"]) for ours, theirs in _COUNTS.items()})
        values.update({ours: row[f"{theirs}_{way}"] for ours, theirs in _ROUND_TRIPS.items()})
        values["syns"], values["fin"] = map(int, row[f"SYN/FIN_pkts_sent_{way}"].split("/"))
        if values["syns"]:
            scale, stamps = row[f"req_1323_ws/ts_{way}"].split("/")
            values["mss"] = int(row[f"mss_requested_{way}"]) % 2**16 or None
            values["window_scale"] = int(row[f"adv_wind_scale_{way}"]) if scale == "Y" else None
            values["timestamps"], values["sack_permitted"] = stamps == "Y", row[f"req_sack_{way}"] == "Y"
    for ours, theirs in (("first_seen", "first_packet"), ("last_seen", "last_packet")):
        seconds, micros = row[theirs].split(".")
        life.whole[ours] = int(seconds) * 10**9 + int(micros) * 1000
    return life


def _end(address: str, port: str) -> End:
    return end(f":{address}" if re.match(r":[^:]", address) else address, port)


def comparable(lives: list[Life]) -> list[Life]:
    """synfin's rows in tcptrace's units: instants in whole microseconds, round trips in tenths of a millisecond.

    A round trip stands on the way of the segment that is answered: what the server's side took is the client's.
    """
    found = []
    for life in lives:
        whole: dict[str, Any] = dict(life.whole)
        whole.update({name: whole[name] // 1000 * 1000 for name in ("first_seen", "last_seen")})
        client = life.pair.index(end(whole["client_ip"], whole["client_port"]))
        ways = (dict(life.ways[0]), dict(life.ways[1]))
        for place, way in enumerate(ways):
            far = life.ways[1 - place]
            if "synack" in way:
                way["syns"] = way["syn"] + way["synack"]
            way["rtt_syn"] = tenths(whole["rtt_server_ns" if place == client else "rtt_client_ns"])
            way["rtt_samples"] = far["rtt_samples"]
            way.update(rtt_min=tenths(far["rtt_min_ns"]), rtt_max=tenths(far["rtt_max_ns"]))
        found.append(Life(life.pair, life.name, ways, whole))
    return found


def tenths(nanoseconds: int | None) -> str:
    """A round trip as tcptrace prints it: milliseconds with one digit, `0.0` where there is none."""
    return f"{(nanoseconds or 0) // 1000 / 1000:.1f}"


# --- Packets -----------------------------------------------------------------------------------------------------------


def with_packets(path: str, lives: list[Life], steps: Mapping[int, Step]) -> list[Life]:
    """The same connections with their packets, and each value of COLUMNS that tcptrace's rules give for them.

    Connections between the same ends follow one another: each has as many packets each way as its row says. ``steps`` are synfin's
    packets by number.
    """
    numbers = Numbers(steps)
    found = [Life(life.pair, life.name, (dict(life.ways[0]), dict(life.ways[1])), dict(life.whole)) for life in lives]
    left = {life.name: [way["packets"] for way in life.ways] for life in found}
    rules = {life.name: Rules(life.pair) for life in found}
    of_pair: dict[Pair, list[Life]] = {}
    for life in found:
        of_pair.setdefault(life.pair, []).append(life)
    for header in _headers(path):
        number = numbers.of(header)
        waiting = of_pair.get(pair_of(header.src, header.dst), [])
        while waiting and not any(left[waiting[0].name]):
            waiting.pop(0)
        life = next((one for one in waiting if left[one.name][one.pair.index(header.src)]), None)
        if life is None:
            continue
        left[life.name][life.pair.index(header.src)] -= 1
        marks = rules[life.name].take(header)
        life.packets.append(Packet(number, header.time, header.src, header.dst, header.flags, header.length, marks, ""))
    for life in found:
        for one, way in zip(life.pair, life.ways, strict=True):
            sender = rules[life.name].senders[one]
            way.update(rtt_samples=sender.samples, rtt_syn=tenths(sender.syn_sample))
            way.update(rtt_min=tenths(sender.smallest), rtt_max=tenths(sender.largest))
    return found


class Numbers:
    """The number in the capture of each packet of tcptrace's, which counts only those that its readers pass on.

    A packet that synfin has, too, is found by its header and time; between two of those the count goes on in step.
    """

    def __init__(self, steps: Mapping[int, Step]):
        self.waiting: dict[tuple, deque[int]] = defaultdict(deque)
        self.behind = 0
        self.times = {number: step.segment.time // 1000 * 1000 for number, step in steps.items()}
        for number in sorted(steps):
            one = steps[number].segment
            key = (one.src, one.sport), (one.dst, one.dport), one.seq, one.ack, one.flags & 0x3F
            self.waiting[key].append(number)

    def of(self, header: Header) -> int:
        expected = header.number + self.behind
        found = self.waiting.get((header.src, header.dst, header.seq, header.ack, header.flags & 0x3F))
        while found and found[0] < expected:
            found.popleft()
        if found and (found[0] == expected or self.times[found[0]] == header.time):
            expected = found.popleft()
            self.behind = expected - header.number
        return expected


_FIELD = re.compile(r"^\s+([A-Za-z ]+?): +(.*?)\s*$", re.MULTILINE)


def _headers(path: str) -> Iterator[Header]:
    """Every TCP packet that tcptrace prints and whose ends it names."""
    for block in re.split(r"^Packet ", run([TCPTRACE, "-n", "-P", path]), flags=re.MULTILINE)[1:]:
        values = {name.strip(): value for name, value in reversed(_FIELD.findall(block))}
        try:
            yield Header(
                int(block.split()[0]), _instant(values["Collected"]),
                _end(values["IP  Srce"], values["TCP SPRT"]), _end(values["IP  Dest"], values["DPRT"]),
                int(values["FLG"].split("0x")[1].rstrip(")"), 16), int(values["SEQ"], 16), int(values["ACK"], 16),
                max(0, (int(values["DLEN"].split()[0]) + 2**31) % 2**32 - 2**31), int(values["WIN"]),
            )  # fmt: skip
        except (KeyError, ValueError, IndexError):
            continue


def _instant(text: str) -> int:
    """`Sat Nov 21 11:22:21.130270 2026` (UTC) as nanoseconds."""
    if text == "<the epoch>":
        return 0
    found = re.fullmatch(r"\w+ +(\w+ +\d+ [\d:]+)\.(-?\d+) (\d+)", text)
    if not found:
        raise ValueError(text)
    return calendar.timegm(time.strptime(f"{found[1]} {found[3]}", "%b %d %H:%M:%S %Y")) * 10**9 + int(found[2]) * 1000
