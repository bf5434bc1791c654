"""The ring path against the file path on the same packets, in one run: framing alone, and tracking.

A capture of the generator is laid out as the memory of a ring, so that no kernel and no card limits what comes. File and ring
take turns in one process; what is told of each is the processor time of its packets alone, start-up and the mapping of the
image left out. The file lies in the page cache and is read as `synfin track` does it; the image lies in memory.

`--record IFACE --seconds N FILE` makes an image of an interface's packets instead, and `--image FILE` measures on it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from cases import CASES, generate, scaled
from measuring import HERE, machine
from ring_image import ImageSource, lay_out, record

from synfin._core.batch import PacketBatch
from synfin.run import Run
from synfin.settings import Settings
from synfin.sources.captures import CaptureInput


def framed(source) -> tuple[float, int]:
    """Processor seconds of walking a source to its end, and its packets."""
    batch, packets = PacketBatch(), 0
    begin = time.process_time()
    while source.fill(batch):
        packets += len(batch)
    took = time.process_time() - begin
    source.close()
    return took, packets


def tracked(source) -> tuple[float, int]:
    """Processor seconds of tracking it with all default columns, and its packets."""
    run = Run(source, Settings())
    begin = time.process_time()
    for _ in run.blocks():
        pass
    return time.process_time() - begin, run.tracker.stats()["packets"]


def images_of(capture: Path, count: int) -> list[Path]:
    """The capture's images, made unless they are there: one, or one for each direction."""
    paths = [capture.with_suffix(f".ring{count}{which}") for which in range(count)]
    if not all(path.exists() and path.stat().st_mtime > capture.stat().st_mtime for path in paths):
        lay_out(capture, paths)
    return paths


def compare(name: str, what: Callable, sources: dict[str, Callable], pairs: int) -> None:
    """Measure all sources in turns, the first again and again beside the others; a line of the table for each."""
    times: dict[str, list[float]] = {source: [] for source in sources}
    packets = 0
    for number in range(pairs + 1):
        for source, opened in sources.items():
            took, packets = what(opened())
            if number:
                times[source].append(took)
    first = next(iter(times))
    for source, found in times.items():
        ratios = sorted(took / base for took, base in zip(found, times[first], strict=True))
        took = statistics.median(found)
        print(
            f"| {name} | {what.__name__} | {source} | {1e9 * took / packets:.1f} | {packets / took / 1e6:.1f} "
            f"| {statistics.median(ratios):.2f} | {' '.join(f'{ratio:.2f}' for ratio in ratios)} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the ring path as a ratio to the file path.")
    parser.add_argument("--pairs", type=int, default=5, help="runs of each (5)")
    parser.add_argument("--scale", type=float, default=0.2, help="of the captures' packets and connections (0.2)")
    parser.add_argument(
        "--folder", type=Path, default=HERE / "build/captures", help="where captures and images are kept"
    )
    parser.add_argument("--only", nargs="+", choices=CASES, default=["snap", "slow", "full"], help="these captures")
    parser.add_argument("--image", type=Path, help="measure on this recorded image alone")
    parser.add_argument("--record", nargs=2, metavar=("IFACE", "FILE"), help="make an image of an interface's packets")
    parser.add_argument("--seconds", type=float, default=10, help="how long to record (10)")
    arguments = parser.parse_args()
    if arguments.record:
        print(f"{record(arguments.record[0], arguments.seconds, Path(arguments.record[1]))} blocks")
        return
    print(", ".join(f"{key}: {value}" for key, value in machine().items()), flush=True)
    print("| capture | what | path | ns a packet | million packets/s | to the file's | of single runs |")
    print("| --- | --- | --- | ---: | ---: | ---: | --- |", flush=True)
    if arguments.image:
        for what in (framed, tracked):
            compare(arguments.image.stem, what, {"ring": partial(ImageSource, [arguments.image])}, arguments.pairs)
        return
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.only:
        case = scaled(CASES[name], arguments.scale)
        capture = generate(case, arguments.folder)
        sources: dict[str, Callable] = {
            "file": partial(CaptureInput, [str(capture)]),
            "ring": partial(ImageSource, images_of(capture, 1)),
        }
        if (
            case.span >= 1
        ):  # else so many packets have the same timestamp that their order over two rings is another one
            sources["two rings"] = partial(ImageSource, images_of(capture, 2))
        for what in (framed, tracked):
            compare(name, what, sources, arguments.pairs)


if __name__ == "__main__":
    main()
