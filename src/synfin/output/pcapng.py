"""Packets as a pcapng file (draft-ietf-opsawg-pcapng): one section, an interface for each link type and each name."""

from __future__ import annotations

import struct
from pathlib import Path

from synfin.output.writer import guarded, sink

_SECTION, _INTERFACE, _ENHANCED = 0x0A0D0D0A, 1, 6
_BYTE_ORDER = 0x1A2B3C4D
_OPT_END, _IF_NAME, _IF_TSRESOL = 0, 2, 9
_NANOSECONDS = 9  # if_tsresol: 10 to the minus 9 seconds
_BUFFER_BYTES = 1 << 20


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _block(kind: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    length = len(body) + 12
    return b"".join((struct.pack("<II", kind, length), body, struct.pack("<I", length)))


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + _padded(value)


class PcapngFile:
    """A pcapng file that gets its name when it is complete.

    Parameters
    ----------
    path : None for standard output.

    Raises
    ------
    ExportError : from every method: the file cannot be written.
    """

    def __init__(self, path: Path | None):
        self._out = sink(path)
        self._interfaces: dict[tuple[int, str | None], int] = {}
        self._pending = [_block(_SECTION, struct.pack("<IHHq", _BYTE_ORDER, 1, 0, -1))]
        self._pending_bytes = 0

    def add(self, data: bytes, time_ns: int, wire_len: int, link_type: int, interface: str | None) -> None:
        """Add a packet: its captured bytes, nanoseconds since 1970, bytes on the wire, LINKTYPE_, name of the interface."""
        number = self._interfaces.get((link_type, interface))
        if number is None:
            number = self._interfaces[link_type, interface] = len(self._interfaces)
            self._pending.append(_describe(link_type, interface))
        head = struct.pack("<IIIII", number, time_ns >> 32, time_ns & 0xFFFFFFFF, len(data), wire_len)
        self._pending.append(_block(_ENHANCED, head, _padded(data)))
        self._pending_bytes += len(data) + 32
        if self._pending_bytes >= _BUFFER_BYTES:
            self._flush()

    def _flush(self) -> None:
        guarded(self._out.name, self._out.file.write, b"".join(self._pending))
        self._pending, self._pending_bytes = [], 0

    def commit(self) -> None:
        """Complete the file and give it its name."""
        self._flush()
        guarded(self._out.name, self._out.finish)
        guarded(self._out.name, self._out.rename)

    def abort(self) -> None:
        """Remove what was written."""
        self._out.discard()


def _describe(link_type: int, interface: str | None) -> bytes:
    name = b"" if interface is None else _option(_IF_NAME, interface.encode()[:65535])
    resolution = _option(_IF_TSRESOL, bytes([_NANOSECONDS]))
    return _block(_INTERFACE, struct.pack("<HHI", link_type, 0, 0), name, resolution, struct.pack("<HH", _OPT_END, 0))
