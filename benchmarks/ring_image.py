"""Ring images: the memory of a TPACKET_V3 ring as a file, and a source that walks it.

An image holds blocks as the kernel hands them over, one behind the other, after a page with a line of JSON. It is made of an
interface's packets (`record`, as root) or of a capture (`lay_out`, which needs no kernel), and can be walked as often as one
likes: its pages are private copies.
"""

from __future__ import annotations

import json
import mmap
import select
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from synfin._core.batch import PacketBatch
from synfin.sources.report import InputReport
from synfin.sources.ring import Ring, RingMerge

BLOCK_BYTES = 1 << 20
_PAGE = 4096
_BLOCK_HEADER, _FRAME_HEADER = 48, 68
_DATA_OFFSET = 82  # where Linux puts an Ethernet header, so that the IP header behind it is aligned
_USER = 1
_STATUS_AT = 8
_ETHERNET = 1
_FRAME = struct.Struct("IIIIIIHHIIHH8xHHiHBB8x")
_BLOCK = struct.Struct("IIIIIIQIIII")
# linux/if_packet.h, linux/if_ether.h
_SOL_PACKET, _RX_RING, _VERSION, _TPACKET_V3, _ETH_P_ALL = 263, 5, 10, 2, 3
_TIMEOUT_MS = 20


class _Image:
    """An image that is written."""

    def __init__(self, path: Path, link_type: int):
        self._file = path.open("wb")
        head = json.dumps({"block_bytes": BLOCK_BYTES, "link_type": link_type}).encode() + b"\n"
        self._file.write(head.ljust(_PAGE, b"\0"))

    def add(self, block: bytes | bytearray | memoryview) -> None:
        """Append a block."""
        self._file.write(block)

    def close(self) -> None:
        """Write what is left."""
        self._file.close()


def packets_of(capture: Path) -> Iterator[tuple[int, int, int, memoryview]]:
    """Seconds, nanoseconds, length on the wire and captured bytes of each packet of a nanosecond pcap of this byte order."""
    data = memoryview(capture.read_bytes())
    magic, *_, link_type = struct.unpack_from("=IHHIIII", data)
    if magic != 0xA1B23C4D or link_type != _ETHERNET:
        raise ValueError(f"{capture} is no nanosecond pcap of Ethernet frames in this machine's byte order")
    at = 24
    while at < len(data):
        seconds, nanoseconds, captured, wire = struct.unpack_from("=IIII", data, at)
        yield seconds, nanoseconds, wire, data[at + 16 : at + 16 + captured]
        at += 16 + captured


def lay_out(capture: Path, paths: list[Path]) -> None:
    """Make an image of a capture of IP on Ethernet, in blocks that are full; of two images, each holds one direction."""
    images = [_Image(path, _ETHERNET) for path in paths]
    blocks = [_Block() for _ in paths]
    for seconds, nanoseconds, wire, data in packets_of(capture):
        which = _direction(data) if len(paths) > 1 else 0
        if not blocks[which].add(seconds, nanoseconds, wire, data):
            images[which].add(blocks[which].finished())
            blocks[which] = _Block()
            blocks[which].add(seconds, nanoseconds, wire, data)
    for image, block in zip(images, blocks, strict=True):
        image.add(block.finished())
        image.close()


def _direction(data: memoryview) -> int:
    source, target = (26, 30) if data[12] == 0x08 else (22, 38)
    return int(bytes(data[source:target]) < bytes(data[target : 2 * target - source]))


class _Block:
    """A block that is filled, as the kernel does it (net/packet/af_packet.c)."""

    def __init__(self) -> None:
        self._bytes = bytearray(BLOCK_BYTES)
        self._at, self._last, self._count = _BLOCK_HEADER, 0, 0

    def add(self, seconds: int, nanoseconds: int, wire: int, data: memoryview) -> bool:
        """Append a packet; False where it does not fit."""
        size = (_DATA_OFFSET + len(data) + 7) // 8 * 8
        if self._at + size > BLOCK_BYTES:
            return False
        _FRAME.pack_into(
            self._bytes, self._at, size, seconds, nanoseconds, len(data), wire, _USER, _DATA_OFFSET, _DATA_OFFSET + 14,
            0, 0, 0, 0, 17, 0, 2, 1, 0, 6,
        )  # fmt: skip
        self._bytes[self._at + _DATA_OFFSET : self._at + _DATA_OFFSET + len(data)] = data
        self._last, self._at, self._count = self._at, self._at + size, self._count + 1
        return True

    def finished(self) -> bytearray:
        """The block as it is handed over."""
        struct.pack_into("I", self._bytes, self._last, 0)
        _BLOCK.pack_into(self._bytes, 0, 1, _BLOCK_HEADER, _USER, self._count, _BLOCK_HEADER, self._at, 1, 0, 0, 0, 0)
        return self._bytes


def record(interface: str, seconds: float, path: Path) -> int:
    """Make an image of what an Ethernet interface receives and sends; the number of blocks. Needs CAP_NET_RAW."""
    count, blocks, image = 0, 64, _Image(path, _ETHERNET)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.setsockopt(_SOL_PACKET, _VERSION, _TPACKET_V3)
        request = struct.pack("7I", BLOCK_BYTES, blocks, 2048, BLOCK_BYTES // 2048 * blocks, _TIMEOUT_MS, 0, 0)
        sock.setsockopt(_SOL_PACKET, _RX_RING, request)
        ring = mmap.mmap(sock.fileno(), BLOCK_BYTES * blocks)
        sock.bind((interface, _ETH_P_ALL))
        poll, until = select.poll(), time.monotonic() + seconds
        poll.register(sock, select.POLLIN)
        while time.monotonic() < until:
            at = count % blocks * BLOCK_BYTES
            if not struct.unpack_from("I", ring, at + _STATUS_AT)[0] & _USER:
                poll.poll(_TIMEOUT_MS)
                continue
            image.add(ring[at : at + BLOCK_BYTES])
            struct.pack_into("I", ring, at + _STATUS_AT, 0)
            count += 1
    image.close()
    return count


class ImageSource:
    """The packets of images, each as one ring, merged by time: a source as `synfin.run.Source` wants it.

    All pages are there before the first packet is asked for, as they are in a real ring.
    """

    def __init__(self, paths: list[Path]):
        self.files: list[str] = []
        self.interfaces = [path.stem for path in paths]
        self.drops, self.outside, self.idle_clock_ns, self.bytes_total = None, 0, 0, None
        self.report = InputReport()
        self._maps, rings = [], []
        for path in paths:
            with path.open("rb") as file:
                self._maps.append(
                    mmap.mmap(
                        file.fileno(),
                        0,
                        flags=mmap.MAP_PRIVATE | mmap.MAP_POPULATE,
                        prot=mmap.PROT_READ | mmap.PROT_WRITE,
                    )
                )
            facts = json.loads(self._maps[-1][:_PAGE].rstrip(b"\0"))
            rings.append(Ring(memoryview(self._maps[-1])[_PAGE:], facts["block_bytes"], facts["link_type"]))
        self._ring = RingMerge(rings)

    def fill(self, batch: PacketBatch) -> bool:
        """Replace the batch's packets by the next ones; False at the end."""
        self._ring.begin(batch)
        if not self._ring.walk(batch):
            if self._ring.failed:
                raise ValueError(self._ring.failed)
            self._ring.settle(batch)
        return len(batch) > 0

    @property
    def packets(self) -> int:
        """Packets so far."""
        return self._ring.packets

    @property
    def bytes_read(self) -> int:
        """Captured bytes so far."""
        return self._ring.bytes

    def close(self) -> None:
        """Let go of the images."""
        self._ring.close()
