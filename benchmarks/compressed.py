"""Compressed captures: `synfin track` beside unpacking them alone (alone.py), in alternating runs.

How much two cores give depends on the machine, so the same files are also unpacked by two processes at once: that is what
an ideal reader of a set could reach if tracking cost nothing.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import statistics
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from measuring import HERE, measure

_BLOCK_BYTES = 65280  # of BGZF, as bgzip makes them
_FRAME_BYTES = 8 << 20  # of Zstandard, as pzstd makes them


def bgzf(source: Path, target: Path) -> None:
    """A capture as BGZF (SAM/BAM specification, section 4.1)."""
    with source.open("rb") as file, target.open("wb") as out:
        while piece := file.read(_BLOCK_BYTES):
            deflate = zlib.compressobj(1, zlib.DEFLATED, -15)
            body = deflate.compress(piece) + deflate.flush()
            out.write(struct.pack("<4sIBBH2sHH", b"\x1f\x8b\x08\x04", 0, 0, 255, 6, b"BC", 2, len(body) + 25) + body)
            out.write(struct.pack("<II", zlib.crc32(piece), len(piece)))


def frames(source: Path, target: Path) -> None:
    """A capture as Zstandard in several frames."""
    import zstandard

    with source.open("rb") as file, target.open("wb") as out:
        while piece := file.read(_FRAME_BYTES):
            out.write(zstandard.ZstdCompressor(level=3).compress(piece))


def one_gzip(source: Path, target: Path) -> None:
    """A capture as one gzip."""
    with source.open("rb") as file, gzip.open(target, "wb", compresslevel=1) as out:
        shutil.copyfileobj(file, out, 1 << 20)


KINDS: dict[str, tuple[str, Callable[[Path, Path], None]]] = {
    "one gzip": (".gz", one_gzip),
    "one BGZF": (".bgz", bgzf),
    "Zstandard in frames": (".zst", frames),
}


def captures(folder: Path, gigabytes: float) -> dict[str, list[Path]]:
    """The captures, made unless they are there: a set of 40, and one of each kind."""
    folder.mkdir(parents=True, exist_ok=True)
    one, many = folder / "one.pcap", folder / "set"
    if not many.exists():
        subprocess.run(
            [sys.executable, HERE / "make_set.py", many, "--gigabytes", str(gigabytes), "--files", "40"], check=True
        )
    if not one.exists():
        packets = int(gigabytes * 1e9 / 4 / 600)
        how = f"--packets {packets} --connections-open 20000 --span 30 --payload full --mix longlived"
        measure([HERE / "build/traffic", *how.split(), "-o", one])
    found = {"set of 40 gzip": sorted(many.glob("*.gz"))}
    for kind, (ending, pack) in KINDS.items():
        target = one.with_name(one.name + ending)
        if not target.exists():
            pack(one, target)
        found[kind] = [target]
    return found


def together(files: list[Path]) -> float:
    """Seconds in which two processes unpack half of the files each."""
    begin = time.perf_counter()
    halves = [
        subprocess.Popen([sys.executable, HERE / "alone.py", *half], stdout=subprocess.DEVNULL)
        for half in (files[::2], files[1::2])
    ]
    if any([process.wait() for process in halves]):
        raise RuntimeError("alone.py failed")
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.6, help="of the set, before compression (1.6)")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=HERE / "build/compressed", help="where the captures are kept")
    parser.add_argument("--only", metavar="TEXT", default="", help="kinds whose name holds this")
    arguments = parser.parse_args()
    print("| input | alone s | alone cpu s | track cpu s | peak MB | track / alone, wall | two at once / alone, wall |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for kind, files in captures(arguments.folder, arguments.gigabytes).items():
        if arguments.only not in kind:
            continue
        rows = []
        for _ in range(arguments.runs):
            alone = measure([sys.executable, HERE / "alone.py", *files])
            track = measure([sys.executable, "-m", "synfin", "track", *files])
            both = together(files) / alone.wall if len(files) > 1 else float("nan")
            rows.append((alone.wall, alone.cpu, track.cpu, track.peak_bytes / 1e6, track.wall / alone.wall, both))
        cells = (f"{statistics.median(column):.2f}" for column in zip(*rows, strict=True))
        print(f"| {kind} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
