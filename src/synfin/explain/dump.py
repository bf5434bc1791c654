"""A segment as ``tcpdump -n -S`` writes it, without the time."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

_FLAGS = (
    (0x01, "F"),
    (0x02, "S"),
    (0x04, "R"),
    (0x08, "P"),
    (0x10, "."),
    (0x20, "U"),
    (0x40, "E"),
    (0x80, "W"),
    (0x100, "e"),
)
_SYN_FIN_RST = 0x07


def flag_letters(flags: int) -> str:
    """The flags as tcpdump's letters: ``S.`` is SYN and ACK, ``F.`` FIN and ACK; ``none``."""
    return "".join(letter for bit, letter in _FLAGS if flags & bit) or "none"


def _sack(value: bytes) -> str:
    if len(value) % 8:
        return " invalid sack"
    edges = struct.unpack(f"!{len(value) // 4}I", value)
    return f" {len(value) // 8} " + "".join(
        f"{{{low}:{high}}}" for low, high in zip(edges[::2], edges[1::2], strict=True)
    )


def _hexadecimal(value: bytes) -> str:
    return f" 0x{value.hex()}" if value else ""


def _number(value: bytes) -> str:
    return f" {int.from_bytes(value)}"


#: Kind -> name, length of the value (None: any), the value as text.
_OPTIONS: dict[int, tuple[str, int | None, Callable[[bytes], str]]] = {
    2: ("mss", 2, _number),
    3: ("wscale", 1, _number),
    4: ("sackOK", 0, lambda value: ""),
    5: ("sack", None, _sack),
    8: ("TS", 8, lambda value: " val {} ecr {}".format(*struct.unpack("!II", value))),
    6: ("echo", 4, _number),
    7: ("echoreply", 4, _number),
    11: ("cc", 4, _number),
    12: ("ccnew", 4, _number),
    13: ("ccecho", 4, _number),
    34: ("tfo", None, lambda value: f"  cookie {value.hex()}" if value else "  cookiereq"),
}
_NAMES = {19: "md5", 28: "uto", 29: "tcp-ao", 30: "mptcp", 254: "exp"}


def options_text(raw: bytes) -> str:
    """TCP options between commas; those that are not known by name with their bytes in hexadecimal."""
    texts, at = [], 0
    while at < len(raw):
        kind = raw[at]
        if kind < 2:
            texts.append("nop" if kind else "eol")
            at += 1
            if kind == 0:
                break
            continue
        size = raw[at + 1] if at + 1 < len(raw) else 0
        if size < 2 or at + size > len(raw):
            texts.append("[bad opt]")
            break
        texts.append(_option(kind, raw[at + 2 : at + size]))
        at += size
    return ",".join(texts)


def _option(kind: int, value: bytes) -> str:
    name, length, text = _OPTIONS.get(kind, (_NAMES.get(kind, f"unknown-{kind}"), None, _hexadecimal))
    return name + (text if length in (None, len(value)) else _hexadecimal)(value)


def segment_text(segment: dict[str, Any], source: str, target: str) -> tuple[str, str, str]:
    """A decoded segment (`probe.decode`) in the three parts that one may break a line between: ends, numbers, rest.

    Joined by spaces they are tcpdump's line, but for its time, an urgent pointer, and what tcpdump says of the payload;
    ``, DF`` is added where the IPv4 header forbids fragments.
    """
    length, flags = segment["payload_bytes"], segment["flags"]
    numbers = f"Flags [{flag_letters(flags)}]"
    if length:
        numbers += f", seq {segment['seq']}:{(segment['seq'] + length) % 2**32}"
    elif flags & _SYN_FIN_RST:
        numbers += f", seq {segment['seq']}"
    if flags & 0x10:
        numbers += f", ack {segment['ack']}"
    numbers += f", win {segment['window']},"
    rest = f"options [{options_text(segment['raw_options'])}], " if segment["raw_options"] else ""
    rest += f"length {length}" + (", DF" if segment["dont_fragment"] else "")
    return f"IP{'6' if segment['ip_version'] == 6 else ''} {source} > {target}:", numbers, rest
