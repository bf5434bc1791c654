"""Flow rows beside tshark's streams: which belong together, and whether two columns say the same.

Plain functions over rows: ours are dictionaries by column name with nanoseconds as integers (``rows.fast``), tshark's are
those of the folder's ``ref`` (its README.md names their columns), text as it stands there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from synfin.verify.points import ACK, SYN, frame_bits, last_frame_bits

Ends = frozenset


def nanoseconds(text: str) -> int | None:
    """Seconds with nine digits as nanoseconds; None where there are none."""
    if not text:
        return None
    whole, _, fraction = text.partition(".")
    value = int(whole.lstrip("-")) * 10**9 + int(fraction.ljust(9, "0")[:9])
    return -value if text.startswith("-") else value


def our_ends(row: dict) -> Ends:
    """The two ends of a row, in no order."""
    return frozenset([(row["client_ip"], row["client_port"]), (row["server_ip"], row["server_port"])])


def their_ends(stream: dict[str, str]) -> Ends:
    """The two ends of a stream, in no order."""
    return frozenset([(stream["src"], int(stream["sport"])), (stream["dst"], int(stream["dport"]))])


def same_packets(row: dict, stream: dict[str, str]) -> bool:
    """Whether a record and a stream between the same ends hold the same packets, as far as counts and times tell."""
    end_a = (stream["src"], int(stream["sport"]))
    a, b = ("client", "server") if end_a == (row["client_ip"], row["client_port"]) else ("server", "client")
    counts = (row[f"{a}_packets"], row[f"{b}_packets"])
    times = (nanoseconds(stream["first"]), nanoseconds(stream["last"]))
    return counts == (int(stream["pkts_a"]), int(stream["pkts_b"])) and times == (row["first_seen"], row["last_seen"])


def join(
    rows: Iterable[dict], streams: Iterable[dict[str, str]]
) -> tuple[list[tuple[dict, dict[str, str]]], list, list]:
    """Pairs of a record and the stream that is exactly it; the records left over; the streams left over."""
    waiting: dict[Ends, list[dict]] = defaultdict(list)
    for row in rows:
        waiting[our_ends(row)].append(row)
    pairs, alone = [], []
    for stream in streams:
        mine = waiting[their_ends(stream)]
        found = next((row for row in mine if same_packets(row, stream)), None)
        if found is None:
            alone.append(stream)
        else:
            mine.remove(found)
            pairs.append((found, stream))
    return pairs, [row for mine in waiting.values() for row in mine], alone


def stream_flags(
    packets: Iterable[tuple[Ends, int, int]], streams: Iterable[dict[str, str]]
) -> dict[str, list[tuple[int, int]]]:
    """(flags, payload bytes) of each stream's packets, from those of the capture in order: (ends, flags, payload).

    A new stream takes over its tuple for good, so the streams of a tuple cut its packets into runs. Streams of a tuple
    whose runs do not add up (headers that are quoted, cut or in tunnels) are left out.
    """
    of_ends: dict[Ends, list[tuple[int, int]]] = defaultdict(list)
    for ends, flags, payload in packets:
        of_ends[ends].append((flags, payload))
    sizes: dict[Ends, list[tuple[str, int]]] = defaultdict(list)
    for stream in streams:
        sizes[their_ends(stream)].append((stream["stream"], int(stream["pkts_a"]) + int(stream["pkts_b"])))
    runs = {}
    for ends, numbered in sizes.items():
        if sum(size for _, size in numbered) == len(of_ends[ends]):
            at = 0
            for number, size in numbered:
                runs[number] = of_ends[ends][at : at + size]
                at += size
    return runs


EQUAL = "equal"
ONE_PASS = "tshark on one pass prints for each frame what the frames before it set: the stream's last frame is missing"
TWO_PASSES = "on the second pass tshark counts the stream's first frame like any other"
FORETOLD = "a control connection (FTP) announced the stream, so that it is not new to tshark with its SYN"
FRAGMENT = "tshark knows no payload length of a first fragment"
NOT_SHOWN = "tshark prints the initial RTT only beside other analysis of a later frame, and this stream has none"
CUT_ELSEWHERE = "the same packets, cut into records elsewhere"
NOT_DECODED = "packets that one of the two does not take for TCP between these ends (tunnels, cut or wrong headers)"
UNEXPLAINED = "unexplained"


def completeness_class(row: dict, stream: dict[str, str], run: list[tuple[int, int]] | None) -> str:
    """Why the two completeness values are what they are, for a record that is exactly the stream."""
    ours, theirs = row["wireshark_completeness"], int(stream["completeness"] or 0)
    if ours == theirs:
        return EQUAL
    whole = theirs | last_frame_bits(run) if run else theirs
    if ours == whole:
        return ONE_PASS
    if ours == whole | 1 and run[0][0] & (SYN | ACK) == SYN:
        return FORETOLD
    payload = row["client_payload_bytes"] + row["server_payload_bytes"]
    if ours ^ whole == 8 and payload != int(stream["bytes_a"]) + int(stream["bytes_b"]):
        return FRAGMENT
    return UNEXPLAINED


def two_pass_class(ours: int, theirs: int, run: list[tuple[int, int]] | None) -> str:
    """The same for what tshark says on two passes."""
    if ours == theirs:
        return EQUAL
    if run and theirs == ours | frame_bits(*run[0]):
        return TWO_PASSES
    if run and ours == theirs | 1 and run[0][0] & (SYN | ACK) == SYN:
        return FORETOLD
    return UNEXPLAINED


def initial_rtt_class(row: dict, stream: dict[str, str]) -> str:
    """The same for the initial RTT."""
    ours, theirs = row["wireshark_initial_rtt_ns"], nanoseconds(stream["irtt"])
    if ours == theirs:
        return EQUAL
    one_sided = 0 in (row["client_packets"], row["server_packets"])
    return NOT_SHOWN if theirs is None and (one_sided or ours == row["duration_ns"]) else UNEXPLAINED


def alone_class(stream: dict[str, str], rows: Iterable[dict], streams: Iterable[dict[str, str]]) -> str:
    """Why a stream is not exactly one record."""
    ends = their_ends(stream)
    ours = sum(row["client_packets"] + row["server_packets"] for row in rows if our_ends(row) == ends)
    theirs = sum(int(other["pkts_a"]) + int(other["pkts_b"]) for other in streams if their_ends(other) == ends)
    return CUT_ELSEWHERE if ours == theirs else NOT_DECODED
