"""Where Zstandard frames end (RFC 8878 section 3.1): tells a cut file from a whole one without decompressing it."""

from __future__ import annotations

_MAGIC = b"\x28\xb5\x2f\xfd"
_RLE_BLOCK = 1


class FrameWalk:
    """Walks over the headers of frames and blocks, fed with the compressed bytes in any pieces."""

    def __init__(self) -> None:
        self._head = b""  # of the field at hand
        self._skip = 0  # bytes to pass before the next field
        self._field = self._magic
        self._size = 4  # of the field at hand
        self._checksum = 0

    def feed(self, data: bytes) -> None:
        """Walk over more bytes."""
        at = 0
        while at < len(data):
            at = self.step(data, at)

    def step(self, data: bytes | bytearray, at: int) -> int:
        """Walk on from ``data[at]`` to the end of the frame or of the data; where that is."""
        while at < len(data):
            step = min(self._skip, len(data) - at)
            if step:
                self._skip -= step
            else:
                step = min(self._size - len(self._head), len(data) - at)
                self._head += data[at : at + step]
                if len(self._head) == self._size:
                    head, self._head = self._head, b""
                    self._field(head)
            at += step
            if self.between:
                break
        return at

    @property
    def between(self) -> bool:
        """True when the bytes so far end with a frame."""
        return self._field == self._magic and not self._head and not self._skip

    def _next(self, field, size: int, skip: int = 0) -> None:
        self._field, self._size, self._skip = field, size, skip

    def _magic(self, head: bytes) -> None:
        # What is no magic is left to the decompressor to complain about.
        self._next(*((self._descriptor, 1) if head == _MAGIC else (self._skippable, 4)))

    def _skippable(self, head: bytes) -> None:
        self._next(self._magic, 4, int.from_bytes(head, "little"))

    def _descriptor(self, head: bytes) -> None:
        flags = head[0]
        single_segment = flags >> 5 & 1
        content_size = (single_segment, 2, 4, 8)[flags >> 6]
        self._checksum = 4 if flags & 4 else 0
        self._next(self._block, 3, (1 - single_segment) + (0, 1, 2, 4)[flags & 3] + content_size)

    def _block(self, head: bytes) -> None:
        value = int.from_bytes(head, "little")
        size = 1 if value >> 1 & 3 == _RLE_BLOCK else value >> 3
        if value & 1:
            self._next(self._magic, 4, size + self._checksum)
        else:
            self._next(self._block, 3, size)
