"""Makes a rotated set of gzip captures, as a long-running tcpdump leaves behind: many files, one stream."""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
_BYTES_PER_PACKET = 555  # full payload, standard mix, record header included; roughly, for other mixes


def compress(path: Path) -> int:
    """Replaces a capture by its gzip (level 1); returns the bytes of the gzip."""
    target = path.with_name(path.name + ".gz")
    with path.open("rb") as source, gzip.open(target, "wb", compresslevel=1) as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
    path.unlink()
    return target.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the set goes; must be empty or new")
    parser.add_argument("--gigabytes", type=float, default=10.0, help="of captures, before compression (10)")
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--connections-open", type=int, default=20_000)
    parser.add_argument("--span", type=float, default=3600.0, help="seconds of capture time (3600)")
    parser.add_argument("--mix", default="standard")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if any(arguments.folder.iterdir()):
        parser.error(f"{arguments.folder} is not empty")
    packets = int(arguments.gigabytes * 1e9 / _BYTES_PER_PACKET)
    command = [HERE / "build/traffic", "-o", arguments.folder / "set.pcap", "--payload", "full"]
    for name in ("files", "connections_open", "span", "mix"):
        command += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
    subprocess.run([*command, "--packets", str(packets)], check=True)
    paths = sorted(arguments.folder.glob("set*.pcap"))
    before = sum(path.stat().st_size for path in paths)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        after = sum(pool.map(compress, paths))
    print(f"{len(paths)} files, {packets:,} packets, {before / 1e9:.2f} GB of captures in {after / 1e9:.2f} GB of gzip")


if __name__ == "__main__":
    main()
