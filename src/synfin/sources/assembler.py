"""Classic BPF programs written with names instead of distances (S. McCanne and V. Jacobson, "The BSD Packet Filter", 1993;
codes as in linux/bpf_common.h and linux/filter.h).

The machine has an accumulator A, an index X and 16 cells of scratch memory, all of 32 bits. Jumps go forward only, so there
are no loops; a load beyond the packet ends the program with 0.
"""

from __future__ import annotations

import struct

#: struct sock_filter, in the host's byte order: code, jump if true, jump if false, k.
INSTRUCTION = struct.Struct("=HBBI")

# A = ... from the packet, network order; k or X + k is the offset.
LOAD_WORD_AT, LOAD_WORD, LOAD_HALF, LOAD_BYTE = 0x20, 0x40, 0x48, 0x50  # the first by k, the others by X + k
SET_A, RECALL_A, STORE_A = 0x00, 0x60, 0x02  # A = k; A = cell k; cell k = A
SET_X, RECALL_X, STORE_X = 0x01, 0x61, 0x03
A_TO_X, X_TO_A = 0x07, 0x87
ADD, MULTIPLY, AND, SHIFT_LEFT, SHIFT_RIGHT = 0x04, 0x24, 0x54, 0x64, 0x74  # A = A ... k
ADD_X, XOR_X = 0x0C, 0xAC  # A = A ... X
RETURN, RETURN_A = 0x06, 0x16
_GO = 0x05
EQUAL, NOT_LESS, ANY_BIT = 0x15, 0x35, 0x45  # A == k, A >= k, A & k
_FARTHEST = 255


class Assembler:
    """A program that is written from its first instruction to its last."""

    def __init__(self) -> None:
        self._steps: list[tuple[int, int, str | None]] = []  # code, k, target of a jump
        self._labels: dict[str, int] = {}

    def do(self, code: int, k: int = 0) -> None:
        """Append an instruction that is no jump."""
        self._steps.append((code, k & 0xFFFFFFFF, None))

    def when(self, condition: int, k: int, target: str) -> None:
        """Go to a label that is at most 255 instructions ahead where `condition` holds for A and k."""
        self._steps.append((condition, k, target))

    def go(self, target: str) -> None:
        """Go to a label ahead."""
        self._steps.append((_GO, 0, target))

    def label(self, name: str) -> None:
        """Name what follows."""
        if name in self._labels:
            raise ValueError(f"label {name} stands twice")
        self._labels[name] = len(self._steps)

    def code(self) -> bytes:
        """The program as a sequence of struct sock_filter. Raises ValueError for a jump that cannot be."""
        return b"".join(self._encoded(at, *step) for at, step in enumerate(self._steps))

    def _encoded(self, at: int, code: int, k: int, target: str | None) -> bytes:
        if target is None:
            return INSTRUCTION.pack(code, 0, 0, k)
        distance = self._labels.get(target, -1) - at - 1
        if distance < 0 or (code != _GO and distance > _FARTHEST):
            raise ValueError(f"no jump from instruction {at} to {target}")
        return INSTRUCTION.pack(code, 0, 0, distance) if code == _GO else INSTRUCTION.pack(code, distance, 0, k)
