"""What a command loads: nothing that it does not use. Seen in `sys.modules`, so that no test needs a clock."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys

import pytest

import synfin
import synfin.cli
from dialogue import write_pcap
from synfin.cli.main import COMMANDS, cli

#: Takes milliseconds to load, and is needed by few runs.
HEAVY = {
    "pyarrow", "numpy", "rich", "asyncio", "logging", "concurrent.futures", "subprocess", "tempfile", "pathlib",
    "importlib.resources", "importlib.metadata", "ctypes", "ipaddress", "isal", "zstandard", "lz4", "dpkt", "prometheus_client", "synfin.live",
    "synfin.api", "synfin.explain", "synfin.verify", "synfin.reference", "synfin.output.arrow", "synfin.output.writer",
    "synfin.sources.filter", "synfin.sources.survey", "synfin.sources.stored", "synfin.sources.live", "synfin.sources.window",
}  # fmt: skip
COMPRESSION = {"bz2", "lzma"}  # click itself loads them, with shutil, to write a page of help
#: What a run needs and the list of commands does not.
TRACKING = {
    "synfin._core",
    "synfin.sources",
    "synfin.run",
    "synfin.settings",
    "synfin.schema",
    "dataclasses",
    "hashlib",
}
_SCRIPT = """
import json, sys
from synfin.cli.main import main
try:
    main(sys.argv[1:])
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def loaded(*arguments: object) -> set[str]:
    """The modules in a new process that has run a command."""
    command = [sys.executable, "-c", _SCRIPT, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_the_list_of_commands_loads_no_command():
    assert loaded("--help") & (HEAVY | TRACKING) == set()


@pytest.mark.parametrize("empty", [True, False])
def test_a_summary_loads_neither_arrow_nor_what_formats_need(tmp_path, capture, empty):
    path = write_pcap(tmp_path / "empty.pcap", []) if empty else capture
    modules = loaded("track", path)
    assert modules & (HEAVY | COMPRESSION) == set()
    assert modules >= TRACKING  # the other test looks for names that exist


def test_the_help_of_top_loads_neither_arrow_nor_rich():
    assert loaded("top", "--help") & {"pyarrow", "rich", "synfin.output.arrow", "synfin.sources.live", "synfin._core"} == set()


def test_rows_load_arrow(tmp_path, capture):
    assert "pyarrow" in loaded("track", capture, "--head", 1)
    assert "pyarrow" in loaded("track", capture, "-o", tmp_path / "rows.csv")


def test_every_command_stands_in_the_list_with_its_line():
    found = {info.name for info in pkgutil.iter_modules(synfin.cli.__path__)}
    assert set(COMMANDS) <= found
    for name, line in COMMANDS.items():
        assert cli.commands[name].short_help == line
    assert list(COMMANDS) == sorted(COMMANDS)


def test_the_public_names_are_there():
    assert set(synfin.__all__) <= set(dir(synfin))
    for name in synfin.__all__:
        assert getattr(synfin, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = synfin.nothing
