"""The captures that are measured on, all from the generator."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from measuring import HERE, measure


class Case(NamedTuple):
    """A capture: `connections` open at once, `span` seconds of capture time."""

    name: str
    packets: int
    connections: int
    span: float
    snaplen: int = 96
    ipv6_share: float = 0.1
    payload: str = "full"
    mix: str = "longlived"
    random_syns: float = 0.0


#: snap and slow: every packet belongs to another connection than the one before. flood: nine of ten packets are SYNs
#: from random addresses. full: whole packets of few connections. churn: 5 million connections of 8 packets, from SYN to
#: close. syns: nothing but SYNs from random addresses.
CASES = {
    case.name: case
    for case in (
        Case("snap", 10_000_000, 500_000, 0.5),
        Case("slow", 10_000_000, 500_000, 160),
        Case("flood", 10_000_000, 500_000, 0.5, random_syns=0.9),
        Case("full", 3_000_000, 20_000, 30, snaplen=262144),
        Case("churn", 40_000_000, 50_000, 600, payload="small", mix="churn"),
        Case("syns", 20_000_000, 1, 60, random_syns=1.0),
    )
}


def scaled(case: Case, scale: float) -> Case:
    """The same with a share of its packets and connections."""
    return case._replace(
        packets=max(int(case.packets * scale), 1000), connections=max(int(case.connections * scale), 1)
    )


def speed_cases(scale: float = 1.0, only: Iterable[str] = ()) -> list[Case]:
    """The named cases, or some of them."""
    return [scaled(case, scale) for name, case in CASES.items() if not only or name in only]


def memory_cases(scale: float) -> list[tuple[Case, Case]]:
    """Connections with a complete handshake, data both ways and no loss: many, and the few that are taken off."""
    return [
        (
            Case(f"memory-{family}", int(9_000_000 * scale), int(1_000_000 * scale), 20, 96, share, "small"),
            Case(f"memory-{family}-few", 100_000, 1_000, 20, 96, share, "small"),
        )
        for family, share in (("ipv4", 0.0), ("ipv6", 1.0))
    ]


def generate(case: Case, folder: Path, microseconds: bool = False) -> Path:
    """The case's capture, made unless this generator has made it before."""
    ending = "-us" if microseconds else ""
    path = folder / f"{case.name}-{case.packets}-{case.connections}-{case.span:g}{ending}.pcap"
    if path.exists() and path.stat().st_mtime > (HERE / "build/traffic").stat().st_mtime:
        return path
    part = path.with_suffix(".part")
    options = {
        "--packets": case.packets, "--connections-open": case.connections, "--span": case.span,
        "--snaplen": case.snaplen, "--ipv6-share": case.ipv6_share, "--payload": case.payload,
        "--mix": case.mix, "--random-syns": case.random_syns, "-o": part,
    }  # fmt: skip
    words = [str(word) for pair in options.items() for word in pair]
    measure([HERE / "build/traffic", *words, *["--microseconds"] * microseconds])
    part.rename(path)
    return path
