"""Checks a wheel as a user gets it: what is in it, and that it runs in a fresh environment without a compiler."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
SAMPLE = EXAMPLES / "13-busy-service.pcap"
COMPILERS = ("cc", "gcc", "clang", "c++", "g++", "c99")

#: Ending -> how Python compresses `data`; run in the fresh environment, so that nothing but the wheel's needs is used.
COMPRESSIONS = {
    ".gz": "import gzip; packed = gzip.compress(data)",
    ".bz2": "import bz2; packed = bz2.compress(data)",
    ".xz": "import lzma; packed = lzma.compress(data)",
    ".lz4": "import lz4.frame; packed = lz4.frame.compress(data)",
    ".zst": "import zstandard; packed = zstandard.compress(data)",
}
ROWS_WITHOUT_PANDAS = """
import importlib.util, sys, synfin
assert importlib.util.find_spec("pandas") is None, "pandas is installed"
rows = synfin.scan(sys.argv[1]).to_pylist()
print(len(rows), synfin.read(sys.argv[1]).num_rows, synfin.__file__)
"""


class Failure(Exception):
    """The wheel is not as it should be."""


def expect(fact: object, message: str) -> None:
    """Raise Failure with the message unless the fact holds."""
    if not fact:
        raise Failure(message)


def check_contents(wheel: Path) -> int:
    """The modules, their stubs, the data and the compiled modules are in it, and nothing else; returns their number."""
    expect(re.search(r"-cp311-abi3-\w+", wheel.name), f"{wheel.name}: not tagged cp311-abi3")
    source = ROOT / "src"
    wanted = {
        path.relative_to(source).as_posix()
        for path in (source / "synfin").rglob("*")
        if path.suffix in (".py", ".pyi") or path.name == "py.typed" or path.parent.name == "data"
    }
    wanted |= {path.relative_to(source).with_suffix(".abi3.so").as_posix() for path in source.rglob("*.pyx")}
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name and not name.endswith("/")}
        licences = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]
    expect(found >= wanted, f"missing in the wheel: {sorted(wanted - found)}")
    expect(found <= wanted, f"too much in the wheel: {sorted(found - wanted)}")
    expect(licences, "no licence in the wheel")
    return len(found)


class Environment:
    """A fresh virtual environment; commands run in it with nothing but its own programs on the PATH."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.programs = folder / "bin"
        venv.create(folder, with_pip=True)
        for name in COMPILERS:
            expect(shutil.which(name, path=str(self.programs)) is None, f"{name} is in the fresh environment")

    def install(self, *what: str) -> None:
        """Install ready-made packages."""
        # pip keeps its settings (which index, which certificates) in variables and in the home folder.
        settings = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self._run(["pip", "install", "-q", "--only-binary", ":all:", *what], settings)

    def run(self, *command: str | Path) -> str:
        """Standard output of a program of the environment; Failure if it fails."""
        return self._run([str(word) for word in command], {"HOME": str(self.folder)})

    def _run(self, command: list[str], variables: dict[str, str]) -> str:
        done = subprocess.run(
            [self.programs / command[0], *command[1:]],
            env={**variables, "PATH": str(self.programs)}, cwd=self.folder,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        expect(done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout


def rows(environment: Environment, capture: Path) -> list[dict[str, Any]]:
    """The flow rows of a capture, less the name of the file."""
    lines = environment.run("synfin", "track", capture, "-o", "-", "--format", "jsonl").splitlines()
    return [{**json.loads(line), "first_file": None} for line in lines]


def check_demo(environment: Environment) -> str:
    """The command of `make demo`, against the numbers of packets that the recorder of the examples wrote."""
    truths = [json.loads(line) for line in (EXAMPLES / "expect.jsonl").read_text().splitlines()]
    summary = json.loads(environment.run("synfin", "track", EXAMPLES, "--json"))
    packets = sum(truth["packets"] for truth in truths)
    expect(summary["packets"] == packets, f"{summary['packets']} packets in the demo, {packets} were recorded")
    expect(summary["accounting"]["holds"], f"the accounting does not hold: {summary['accounting']}")
    return environment.run("synfin", "track", EXAMPLES, "--head", "12")


def check_compressions(environment: Environment) -> None:
    """Every compression gives the rows of the plain capture."""
    plain = rows(environment, SAMPLE)
    expect(plain, f"{SAMPLE.name} gives no rows")
    for ending, code in COMPRESSIONS.items():
        packed = environment.folder / (SAMPLE.name + ending)
        write = f"import sys; data = open(sys.argv[1], 'rb').read(); {code}; open(sys.argv[2], 'wb').write(packed)"
        environment.run("python", "-c", write, SAMPLE, packed)
        expect(packed.read_bytes() != SAMPLE.read_bytes(), f"{packed.name} is not compressed")
        expect(rows(environment, packed) == plain, f"{packed.name} gives other rows than the plain capture")


def check_python(environment: Environment) -> None:
    """Lists of rows come without pandas, and from the installed package."""
    listed, read, where = environment.run("python", "-c", ROWS_WITHOUT_PANDAS, SAMPLE).split()
    expect(listed == read != "0", f"{listed} rows as a list, {read} as a table")
    expect(Path(where).is_relative_to(environment.folder), f"synfin was imported from {where}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--environment", type=Path, help="make it here and keep it; otherwise it is temporary")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        try:
            files = check_contents(arguments.wheel)
            environment = Environment(arguments.environment or Path(temporary) / "env")
            environment.install(str(arguments.wheel.resolve()))
            print(check_demo(environment))
            check_compressions(environment)
            check_python(environment)
        except Failure as failure:
            print(f"{arguments.wheel.name}: {failure}", file=sys.stderr)
            return 1
    print(
        f"{arguments.wheel.name}: {files} files; the demo and plain, {', '.join(COMPRESSIONS)} captures run without a compiler"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
