"""What `make` says where something is missing: one line that names it and what to do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What the makefile calls before it knows that a compiler and Python are there.
TOOLS = ("make", "sh", "find", "touch")
OLD_PYTHON = f"""#!/bin/sh
[ "$1" = -V ] && echo "Python 3.9.2" && exit
exec "{sys.executable}" -c "import sys; sys.version_info = (3, 9, 2); exec(sys.argv[1])" "$2"
"""


@pytest.fixture
def tree(tmp_path):
    """A makefile beside (almost) nothing, and a folder of programs that is the whole PATH."""
    if not all(map(shutil.which, TOOLS)):
        pytest.skip(f"needs {', '.join(TOOLS)}")
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "src/synfin").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    for name in TOOLS:
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    return tmp_path


def program(tree, name, text="#!/bin/sh\nexit 0\n"):
    path = tree / "bin" / name
    path.write_text(text)
    path.chmod(0o755)


def real_python(tree):
    program(tree, "python3", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')


def make(tree, *arguments):
    """What the makefile said, less the line by which make itself reports that a command failed."""
    done = subprocess.run(
        ["make", *arguments], cwd=tree, env={"PATH": str(tree / "bin"), "HOME": os.environ.get("HOME", "/")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert not (tree / ".venv").exists()
    assert all(line.startswith("make") for line in done.stderr.splitlines()), done.stderr
    (line,) = done.stdout.splitlines()
    return line


@pytest.mark.parametrize("target", ["demo", "test", "test-all"])
def test_no_compiler(tree, target):
    real_python(tree)
    line = make(tree, target)
    assert "needs a C compiler" in line and "CC=" in line


def test_named_compiler_that_is_not_there(tree):
    real_python(tree)
    program(tree, "cc")
    assert "needs a C compiler" in make(tree, "demo", "CC=no-such-cc")


@pytest.mark.parametrize("target", ["demo", "test"])
def test_old_python(tree, target):
    program(tree, "cc")
    program(tree, "python3", OLD_PYTHON)
    line = make(tree, target)
    assert "needs Python 3.11 or newer" in line and "Python 3.9.2" in line


def test_no_python(tree):
    program(tree, "cc")
    assert "needs Python 3.11 or newer" in make(tree, "demo")


def test_python_without_headers(tree):
    program(tree, "cc")
    bare = 'import sys, sysconfig; sysconfig.get_path = lambda name: "/nowhere"; exec(sys.argv[1])'
    program(tree, "python3", f'#!/bin/sh\nexec "{sys.executable}" -c \'{bare}\' "$2"\n')
    assert "headers" in make(tree, "demo")


def test_help_names_every_target(tree):
    said = subprocess.run(["make", "help"], cwd=tree, capture_output=True, text=True, check=True).stdout
    makefile = (ROOT / "Makefile").read_text()
    phony = makefile.split(".PHONY:")[1].splitlines()[0].split()
    assert {name for name in phony if name not in said} <= {"help", "build"}
