"""Blocks of a TPACKET_V3 ring, written from Documentation/networking/packet_mmap.rst and linux/if_packet.h alone."""

from __future__ import annotations

import struct
from typing import NamedTuple

from synfin._core.batch import PacketBatch
from synfin.sources.ring import Ring, RingMerge

KERNEL, USER, VLAN_VALID = 0, 1, 0x10
HOST = 0
BLOCK_HEADER, FRAME_HEADER, DATA = 48, 68, 96


class Frame(NamedTuple):
    time_ns: int
    data: bytes
    wire_len: int | None = None
    vlan_tci: int | None = None


def frame_bytes(frame: Frame, last: bool, **wrong: int) -> bytes:
    """A frame as the kernel writes it; `wrong` overrides fields."""
    size = (DATA + len(frame.data) + 7) // 8 * 8
    field = {
        "next_offset": 0 if last else size, "captured_len": len(frame.data), "data_offset": DATA,
        "wire_len": len(frame.data) if frame.wire_len is None else frame.wire_len, **wrong,
    }  # fmt: skip
    seconds, nanoseconds = divmod(frame.time_ns, 10**9)
    tagged = frame.vlan_tci is not None
    head = struct.pack(
        "IIIIIIHHIIHH8x", field["next_offset"], seconds, nanoseconds, field["captured_len"], field["wire_len"],
        USER | (VLAN_VALID if tagged else 0), field["data_offset"], DATA + 14, 0, frame.vlan_tci or 0, 0x8100 if tagged else 0, 0,
    )  # fmt: skip
    address = struct.pack("=HHiHBB8s", 17, 0x0300, 2, 1, HOST, 6, b"")
    head += address
    assert len(head) == FRAME_HEADER
    return (head.ljust(DATA, b"\0") + frame.data).ljust(size, b"\0")


def block_bytes(frames: list[bytes], size: int, status: int = USER, **wrong: int) -> bytes:
    """A block of `size` bytes."""
    body = b"".join(frames)
    field = {"packets": len(frames), "first_offset": BLOCK_HEADER, **wrong}
    head = struct.pack(
        "IIIIIIQIIII",
        1,
        BLOCK_HEADER,
        status,
        field["packets"],
        field["first_offset"],
        BLOCK_HEADER + len(body),
        1,
        0,
        0,
        0,
        0,
    )
    assert len(head) == BLOCK_HEADER and len(head) + len(body) <= size
    return (head + body).ljust(size, b"\0")


def block_of(frames: list[Frame], size: int, **wrong: int) -> bytes:
    """A block with these frames."""
    return block_bytes([frame_bytes(frame, frame is frames[-1]) for frame in frames], size, **wrong)


def status(memory: bytearray, block: int, size: int) -> int:
    """Whose a block is."""
    return struct.unpack_from("I", memory, block * size + 8)[0]


def walker(memory: bytearray, size: int, link_type: int = 1) -> RingMerge:
    """One ring alone."""
    return RingMerge([Ring(memory, size, link_type)])


class RingSource:
    """A source whose kernel is a list of blocks: each time the ring runs dry, the next ones are laid in, and when there
    are none the input ends.
    """

    files: tuple = ()
    interfaces = ("fake",)
    report = drops = bytes_total = None
    bytes_read = idle_clock_ns = outside = 0

    def __init__(self, blocks: list[bytes], size: int, *, slots: int = 2, link_type: int = 1):
        self.size, self.blocks = size, list(blocks)
        self.memory = bytearray(slots * size)
        self.slots, self.next = slots, 0
        self.ring = walker(self.memory, size, link_type)

    def supply(self) -> bool:
        """Lay in blocks where the ring has room, as the kernel does: in order, and only into blocks that are its own."""
        before = len(self.blocks)
        while self.blocks and status(self.memory, self.next, self.size) == KERNEL:
            at = self.next * self.size
            self.memory[at : at + self.size] = self.blocks.pop(0)
            self.next = (self.next + 1) % self.slots
        return len(self.blocks) < before

    def fill(self, batch: PacketBatch) -> bool:
        self.ring.begin(batch)
        while not self.ring.walk(batch):
            if not self.supply():
                self.ring.settle(batch)
                return len(batch) > 0
        return True

    def close(self) -> None:
        self.ring.close()
