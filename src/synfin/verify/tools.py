"""Runs the other tools as programs and reads what they print. They are found on the PATH and never linked.

tshark: Wireshark's dissectors, one line per packet with TCP, summed here per tcp.stream. tcptrace: see tcptrace.py.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from typing import Any

from synfin.errors import SynfinError
from synfin.verify.lives import ACK, FIN, RST, SYN, Life, Packet, end, pair_of

TSHARK, TCPTRACE = "tshark", "tcptrace"
INSTALL = {TSHARK: "apt install tshark", TCPTRACE: "apt install tcptrace"}


_VERSION = {TCPTRACE: "-v"}
_SECONDS = {TSHARK: 3600, TCPTRACE: 60}  #: tcptrace reads a million packets a second, and loops on some


class ToolError(SynfinError):
    """Another tool is missing, or cannot read the capture."""


#: tcp.analysis.* flags by the name of the column that they are compared with.
MARKS = {
    "retransmission": "retransmitted", "out_of_order": "out_of_order", "keep_alive": "keep_alives",
    "zero_window": "zero_windows", "duplicate_ack": "duplicate_acks",
}  # fmt: skip
#: Further flags that reasons look at.
OTHER_MARKS = (
    "fast_retransmission", "spurious_retransmission", "keep_alive_ack", "lost_segment", "ack_lost_segment", "window_update",
    "zero_window_probe", "zero_window_probe_ack", "window_full", "reused_ports",
)  # fmt: skip
_FIELDS = [
    "frame.number", "frame.time_epoch", "frame.protocols", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "gre.proto", "tcp.stream",
    "tcp.srcport", "tcp.dstport", "tcp.flags", "tcp.len", "tcp.seq_raw", "tcp.options.mss_val", "tcp.options.wscale.shift",
    "tcp.options.sack_perm", "tcp.options.timestamp.tsval", "tcp.completeness", "tcp.analysis.initial_rtt",
    *(f"tcp.analysis.{name}" for name in (*MARKS, *OTHER_MARKS)),
]  # fmt: skip
#: Segments as they were captured: nothing is put together out of several packets.
_PREFERENCES = ("tcp.desegment_tcp_streams:FALSE", "ip.defragment:FALSE", "ipv6.defragment:FALSE")
#: What GRE may carry that is no protocol of one maker: IP, Ethernet, ERSPAN, PPP, MPLS, tagged frames.
_GRE = {"", "0x0800", "0x86dd", "0x6558", "0x88be", "0x22eb", "0x880b", "0x8847", "0x8848", "0x8100"}
#: Layers that quote a TCP header which is no segment.
_QUOTES = {"icmp", "icmpv6", "sflow"}


def version(tool: str) -> str | None:
    """The installed version of a tool in its own words; None where it is not on the PATH."""
    path = shutil.which(tool)
    if path is None:
        return None
    asked = subprocess.run([path, _VERSION.get(tool, "--version")], capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+[\w.]*", asked.stdout + asked.stderr)
    return f"{tool} {found[0]}" if found else tool


def missing(tool: str) -> str:
    return f"{tool} is not on the PATH ({INSTALL[tool]})"


def nanoseconds(text: str) -> int | None:
    """Seconds with a decimal fraction as nanoseconds; None for nothing.

    A fraction of more than nine digits is one that the tool did not carry over into the seconds.
    """
    if not text:
        return None
    whole, _, fraction = text.partition(".")
    seconds, rest = int(whole), int(fraction.ljust(9, "0")) if fraction else 0
    return seconds * 1_000_000_000 + (-rest if text.startswith("-") else rest)


_ENVIRONMENT = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}


def run(arguments: list[str]) -> str:
    """What a tool prints. Raises ToolError where it is missing, fails, crashes or does not come to an end."""
    path = shutil.which(arguments[0])
    if path is None:
        raise ToolError(missing(arguments[0]))
    try:
        done = subprocess.run(
            [path, *arguments[1:]], capture_output=True, check=False, env=_ENVIRONMENT, timeout=_SECONDS[arguments[0]]
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError(
            f"{arguments[0]} does not come to an end with {arguments[-1]} ({error.timeout:.0f} s)"
        ) from None
    if done.returncode < 0:
        raise ToolError(f"{arguments[0]} crashes on {arguments[-1]} (signal {-done.returncode})")
    if done.returncode and not done.stdout:
        message = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        message = [line for line in message if "Running as user" not in line]
        raise ToolError(f"{arguments[0]} cannot read {arguments[-1]}: {message[-1] if message else 'no output'}")
    return done.stdout.decode(errors="replace")


# --- tshark ----------------------------------------------------------------------------------------------------------


def tshark(path: str) -> list[Life]:
    """tshark's streams of a capture, with their packets. Raises ToolError."""
    options = [word for preference in _PREFERENCES for word in ("-o", preference)]
    fields = [word for field in _FIELDS for word in ("-e", field)]
    text = run([TSHARK, "-n", *options, "-Y", "tcp", "-T", "fields", "-E", "occurrence=a", *fields, "-r", path])
    streams: dict[str, Life] = {}
    for line in text.splitlines():
        values = dict(zip(_FIELDS, line.split("\t"), strict=False))
        for packet, stream in _packets(values):
            if stream not in streams:
                streams[stream] = _new_stream(stream, packet)
            _add(streams[stream], packet, values)
    return list(streams.values())


def _packets(values: dict[str, str]) -> Iterator[tuple[Packet, str]]:
    """Each TCP header of a frame that is a segment, and its stream; a header that is only quoted is none."""
    layers = values["frame.protocols"].split(":")
    if foreign := set(values["gre.proto"].split(",")) - _GRE:
        layers = [f"gre-{min(foreign)}" if layer == "gre" else layer for layer in layers]
    marks = frozenset(name for name in (*MARKS, *OTHER_MARKS) if values.get(f"tcp.analysis.{name}"))
    for place, at in enumerate(index for index, layer in enumerate(layers) if layer == "tcp"):
        above = layers[:at]
        networks = [layer for layer in above if layer in ("ip", "ipv6")]
        if not networks or _QUOTES & set(above):
            continue
        kind = networks[-1]
        ip_place = networks.count(kind) - 1
        try:
            src, dst = (values[f"{kind}.{side}"].split(",")[ip_place] for side in ("src", "dst"))
            ends = end(src, _nth(values, "srcport", place)), end(dst, _nth(values, "dstport", place))
            stream, flags = _nth(values, "stream", place), int(_nth(values, "flags", place) or "0", 16)
        except (ValueError, IndexError):
            continue  # a header cut before its ports
        length = _nth(values, "len", place)
        number, time = int(values["frame.number"]), nanoseconds(values["frame.time_epoch"]) or 0
        yield Packet(number, time, *ends, flags, int(length) if length else None, marks, ":".join(above)), stream


def _nth(values: dict[str, str], name: str, place: int) -> str:
    """The value of a field of TCP in the frame's header number ``place``; empty where it has none."""
    found = values[f"tcp.{name}"].split(",")
    return found[place] if place < len(found) else ""


_COUNTED = ("packets", "payload_bytes", "syn", "synack", "fin_count", "rst_count", *MARKS.values())


def _new_stream(name: str, packet: Packet) -> Life:
    life = Life(pair_of(packet.src, packet.dst), name)
    for way in life.ways:
        way.update(dict.fromkeys(_COUNTED, 0), fin=None, isn=None, mss=None, window_scale=None)
        way.update(sack_permitted=None, timestamps=None)
    life.whole.update(
        first_seen=packet.time, last_seen=packet.time, first_packet=packet.number, syn_first=None, synack_first=None,
        rst_seen=None, completeness=0, initial_rtt=None,
    )  # fmt: skip
    return life


def _add(life: Life, packet: Packet, values: dict[str, str]) -> None:
    """Enter one packet into the sums of its stream."""
    life.packets.append(packet)
    way, whole = life.ways[life.pair.index(packet.src)], life.whole
    whole["first_seen"], whole["last_seen"] = (
        min(whole["first_seen"], packet.time),
        max(whole["last_seen"], packet.time),
    )
    syn, ack = bool(packet.flags & SYN), bool(packet.flags & ACK)
    counts = {
        "packets": 1, "payload_bytes": packet.length or 0, "syn": syn and not ack, "synack": syn and ack,
        "fin_count": bool(packet.flags & FIN), "rst_count": bool(packet.flags & RST),
        **{column: mark in packet.marks for mark, column in MARKS.items()},
    }  # fmt: skip
    for name, count in counts.items():
        way[name] += count
    for name, holds in (
        ("syn_first", counts["syn"]),
        ("synack_first", counts["synack"]),
        ("rst_seen", counts["rst_count"]),
    ):
        if holds and whole[name] is None:
            whole[name] = packet.time
    if packet.flags & FIN and way["fin"] is None:
        way["fin"] = packet.time
    if syn and way["isn"] is None:
        _first_syn(way, values)
    whole["completeness"] |= int((values.get("tcp.completeness") or "0").split(",")[0])
    if whole["initial_rtt"] is None and values.get("tcp.analysis.initial_rtt"):
        whole["initial_rtt"] = nanoseconds(values["tcp.analysis.initial_rtt"].split(",")[0])


def _first_syn(way: dict[str, Any], values: dict[str, str]) -> None:
    """What an end's first SYN or SYN-ACK says; of an option that it holds twice, the first."""

    def number(name: str) -> int | None:
        value = values.get(f"tcp.{name}", "").split(",")[0]
        return int(value) if value else None

    way.update(isn=number("seq_raw"), mss=number("options.mss_val"), window_scale=number("options.wscale.shift"))
    way["sack_permitted"] = bool(values.get("tcp.options.sack_perm"))
    way["timestamps"] = bool(values.get("tcp.options.timestamp.tsval"))


# --- Rows of tshark that were made before ------------------------------------------------------------------------------


def tshark_rows(lines: Iterable[str]) -> Iterator[Life]:
    """Streams out of a table that holds tshark's figures, one row per tcp.stream, without their packets.

    Columns end in `_a` for the sender of the stream's first segment and in `_b` for the other; `layer` is `seg` where
    the row is of segments and not of quoted headers.
    """
    for row in csv.DictReader((line for line in lines if not line.startswith("#")), delimiter="\t"):
        if row["layer"] == "seg":
            yield _life_of_row(row)


_ROW_COUNTS = {
    "packets": "pkts", "payload_bytes": "bytes", "syn": "syn", "synack": "synack", "fin_count": "fin", "rst_count": "rst",
    "retransmitted": "retrans", "out_of_order": "ooo", "keep_alives": "keepalive", "zero_windows": "zerowin",
    "duplicate_acks": "dupack",
}  # fmt: skip
_ROW_OPTIONS = {"mss": "mss", "window_scale": "ws", "isn": "isn"}


def _life_of_row(row: dict[str, str]) -> Life:
    ends = end(row["src"], row["sport"]), end(row["dst"], row["dport"])
    life = Life(pair_of(*ends), row["stream"])
    for side, one in zip("ab", ends, strict=True):
        way = life.ways[life.pair.index(one)]
        way.update({ours: int(row[f"{theirs}_{side}"]) for ours, theirs in _ROW_COUNTS.items()})
        way.update({ours: _number(row[f"{theirs}_{side}"]) for ours, theirs in _ROW_OPTIONS.items()})
        opened = row[f"isn_{side}"] != ""
        way["sack_permitted"] = row[f"sackp_{side}"] == "1" if opened else None
        way["timestamps"] = row[f"tsopt_{side}"] == "1" if opened else None
        way["fin"] = nanoseconds(row[f"t_fin_{side}"])
    life.whole.update(
        first_seen=nanoseconds(row["first"]), last_seen=nanoseconds(row["last"]), syn_first=nanoseconds(row["t_syn"]),
        synack_first=nanoseconds(row["t_synack"]), rst_seen=nanoseconds(row["t_rst"]),
        completeness=int(row["completeness"] or "0"), initial_rtt=nanoseconds(row["irtt"]),
    )  # fmt: skip
    return life


def _number(text: str) -> int | None:
    return int(text) if text else None
