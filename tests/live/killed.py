"""Kills a writer of an output folder again and again, and looks at what it leaves: FOLDER KILLS SEED.

Prints how many complete files there are, and how many half ones were removed by later starts; goes on beyond KILLS until
there is one of each. Writers are forked, so that a kill falls into their work and not into imports, and are killed some
files and a moment later: a busy machine gives them little to do in a time. This process uses no thread.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from rolls import Numbers, about, hidden, layouts, rows, tree

from synfin.sidecar.rolling import Rolling

TABLES = ("flows", "intervals", "interim")
MS = 1_000_000
PATIENCE_S = 60


def write(folder: Path, ready: int) -> None:
    """Write without end, with many rolls."""
    rolling = Rolling(
        folder,
        layouts(*TABLES),
        roll_ns=20 * MS,
        roll_rows=5_000,
        metadata=lambda: {"command": "x"},
        keep_bytes=3 << 20,
    )
    blocks = {table: Numbers(table, 2_000) for table in TABLES}
    os.write(ready, rolling.leftovers.to_bytes(2, "big"))
    while True:
        for table, block in blocks.items():
            rolling.write(table, block)
        rolling.tick()
        time.sleep(0.002)


def check(folder: Path) -> None:
    """Every file under its name is whole."""
    for name in tree(folder):
        assert 0 < len(rows(folder / name)) <= 5_000, name
        assert about(folder / name)["complete"] in ("true", "false"), name


def start_again(folder: Path, ready: int) -> None:
    """The next start removes what is half written."""
    half = len(hidden(folder))
    rolling = Rolling(folder, layouts(*TABLES), roll_ns=20 * MS, metadata=dict)
    assert rolling.leftovers == half
    assert hidden(folder) == []
    rolling.close()
    check(folder)
    os.write(ready, half.to_bytes(2, "big"))


def forked(call, *arguments) -> int:
    """Run in a process of its own; returns its number."""
    child = os.fork()
    if child == 0:
        try:
            call(*arguments)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return child


def told(call, *arguments) -> tuple[int, bytes]:
    """The same; waits until the process says something (its last argument is where), and returns that as well."""
    reads, writes = os.pipe()
    child = forked(call, *arguments, writes)
    os.close(writes)
    said = os.read(reads, 2)
    os.close(reads)
    return child, said


def wait(child: int, wanted: int = 0) -> None:
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) != wanted:
        sys.exit(f"a process ended with {os.waitstatus_to_exitcode(status)}")


def wait_for_files(folder: Path, count: int) -> None:
    """Wait until the writer has completed so many more files; it may remove older ones."""
    end, before = time.monotonic() + PATIENCE_S, set(tree(folder))
    while len(set(tree(folder)) - before) < count:
        if time.monotonic() > end:
            sys.exit("the writer writes nothing")
        time.sleep(0.001)


def main(folder: Path, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    complete = leftovers = number = 0
    while number < kills or (not (complete and leftovers) and number < 10 * kills):
        out = folder / str(number // 10)  # a later writer of the same folder finds what the earlier ones left
        writer, said = told(write, out)
        leftovers += int.from_bytes(said, "big")
        wait_for_files(out, chance.choice([0, 0, 1, 3, 6]))
        time.sleep(chance.uniform(0.0, 0.05))
        os.kill(writer, signal.SIGKILL)
        wait(writer, -signal.SIGKILL)
        wait(forked(check, out))
        number += 1
        if number % 10 == 0 or number >= kills:
            starter, said = told(start_again, out)
            wait(starter)
            leftovers += int.from_bytes(said, "big")
            complete += len(tree(out))
    print(complete, leftovers)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
