"""Filters that the kernel runs before a packet enters the ring (socket(7), SO_ATTACH_FILTER).

A program is a sequence of struct sock_filter, 8 bytes each, in the host's byte order. What it returns is how many bytes
of the packet to keep, 0 for none: so it is the snap length, too.
"""

from __future__ import annotations

import re
import struct
import subprocess

from synfin.errors import ConfigError
from synfin.sources.filter import WHOLE, LibpcapMissing, compile_for_kernel

_INSTRUCTION = struct.Struct("=HBBI")
_MOST_INSTRUCTIONS = 4096  # BPF_MAXINSNS of linux/bpf_common.h
# linux/bpf_common.h, linux/filter.h
_RETURN, _RETURN_A = 0x06, 0x16
_LOAD_BYTE, _JUMP_IF_EQUAL = 0x30, 0x15
_PACKET_TYPE = 0xFFFFF000 + 4  # SKF_AD_OFF + SKF_AD_PKTTYPE: ancillary data instead of the packet's
_PACKET_OUTGOING = 4
_TCPDUMP_SECONDS = 10
_RAW_IP = 101
_BYTECODE = re.compile(r"\s*\d+\s*(,|\n|$)")

#: The program that takes nothing.
TAKE_NOTHING = _INSTRUCTION.pack(_RETURN, 0, 0, 0)
_WITHOUT_OUTGOING = b"".join(
    (
        _INSTRUCTION.pack(_LOAD_BYTE, 0, 0, _PACKET_TYPE),
        _INSTRUCTION.pack(_JUMP_IF_EQUAL, 0, 1, _PACKET_OUTGOING),
        TAKE_NOTHING,
    )
)


class KernelFilter:
    """What the kernel lets into the rings of a run.

    Parameters
    ----------
    filter : an expression (pcap-filter(7)), which libpcap compiles, else tcpdump; or a program: as text, as ``tcpdump
        -ddd`` prints it (lines may be joined by commas), or as the bytes of its struct sock_filter. None: everything.
    snaplen : bytes of each packet to keep; None: all.
    """

    def __init__(self, filter: str | bytes | None, snaplen: int | None):
        if snaplen is not None and not 1 <= snaplen <= WHOLE:
            raise ConfigError(f"the snap length must be between 1 and {WHOLE:,} bytes, not {snaplen:,}")
        self.filter = filter
        self.snaplen = snaplen
        self._compiled: dict[tuple[str, int], bytes] = {}

    def program(self, interface: str, link_type: int, *, outgoing: bool) -> bytes:
        """The program for an interface whose frames are of a link type (LINKTYPE_).

        `outgoing`: whether packets that the host sends pass. Raises ConfigError for a filter that cannot be compiled
        or attached.
        """
        code = self._compiled.get((interface, link_type))
        if code is None:
            code = self._compiled[interface, link_type] = _bounded(self._compile(interface, link_type), self.snaplen)
        return code if outgoing else _WITHOUT_OUTGOING + code

    def _compile(self, interface: str, link_type: int) -> bytes:
        if self.filter is None:
            return _INSTRUCTION.pack(_RETURN, 0, 0, WHOLE)
        if isinstance(self.filter, bytes):
            return self.filter
        if _BYTECODE.match(self.filter):
            return parse_bytecode(self.filter)
        try:
            return compile_for_kernel(self.filter, interface, link_type)
        except LibpcapMissing:
            return _ask_tcpdump(self.filter, interface, link_type)


def parse_bytecode(text: str) -> bytes:
    """The program of a text as ``tcpdump -ddd`` prints it: the number of instructions, then ``op jt jf k`` for each, in
    decimal, one on a line or separated by commas. Raises ConfigError.
    """
    count, *rows = [part.split() for part in re.split(r"[,\n]", text) if part.strip()]
    try:
        code = b"".join(_INSTRUCTION.pack(*map(int, row)) for row in rows)
    except (struct.error, ValueError):
        raise ConfigError("filter bytecode: an instruction is four numbers: op jt jf k") from None
    if count != [str(len(rows))]:
        raise ConfigError(f"filter bytecode: it announces {' '.join(count)} instructions and holds {len(rows)}")
    return code


def _ask_tcpdump(expression: str, interface: str, link_type: int) -> bytes:
    # With an interface tcpdump knows, as libpcap does, that tags are taken off.
    where = ["-y", "RAW"] if link_type == _RAW_IP else ["-p", "-i", interface]
    command = ["tcpdump", *where, "-s", str(WHOLE), "-ddd", "--", expression]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_TCPDUMP_SECONDS)
    except FileNotFoundError:
        raise ConfigError(
            "--filter needs libpcap or tcpdump, and neither is installed; bytecode needs none: the output of "
            "tcpdump -ddd from another host"
        ) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"filter {expression!r}: tcpdump failed ({error})") from None
    if done.returncode:
        complaint = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ConfigError(f"filter {expression!r}: {complaint.removeprefix('tcpdump: ')}")
    return parse_bytecode(done.stdout)


def _bounded(code: bytes, snaplen: int | None) -> bytes:
    # The same program, keeping at most `snaplen` bytes.
    if not code or len(code) % _INSTRUCTION.size:
        raise ConfigError(f"a filter program is a sequence of {_INSTRUCTION.size}-byte instructions, not {len(code)} bytes")
    instructions = list(_INSTRUCTION.iter_unpack(code))
    room = _MOST_INSTRUCTIONS - len(_WITHOUT_OUTGOING) // _INSTRUCTION.size
    if len(instructions) > room:
        raise ConfigError(f"the filter is too long for the kernel: {len(instructions):,} instructions, {room:,} at most")
    if snaplen is None:
        return code
    if any(op == _RETURN_A for op, *_ in instructions):
        raise ConfigError("the filter computes how much of a packet to keep; it cannot have a snap length as well")
    return b"".join(
        _INSTRUCTION.pack(op, jt, jf, min(k, snaplen) if op == _RETURN else k) for op, jt, jf, k in instructions
    )
