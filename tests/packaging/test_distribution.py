"""The source package, the wheel built from it, and that wheel in a fresh environment without a compiler and pandas."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MADE_HERE = shutil.ignore_patterns(
    ".git", ".venv*", "build", "dist", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info"
)
GENERATED = (".so", ".pyc", ".html")

pytestmark = pytest.mark.slow


def run(*command, **how):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **how)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """Skips the tests that need packages where pip reaches none."""
    folder = tmp_path_factory.mktemp("index")
    probe = subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--retries", "0", "-d", folder, "click"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if probe.returncode:
        pytest.skip(f"pip reaches no package index: {probe.stderr.strip().splitlines()[-1]}")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The source package of a copy of this tree, with whatever was generated in it left where it lies."""
    pytest.importorskip("Cython", reason="making the source package needs Cython")
    folder = tmp_path_factory.mktemp("sdist")
    tree = shutil.copytree(ROOT, folder / "tree", ignore=MADE_HERE, ignore_dangling_symlinks=True)
    run(sys.executable, "setup.py", "-q", "sdist", "-d", folder, cwd=tree)
    return next(folder.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(index, sdist, tmp_path_factory):
    """The wheel that pip builds from the source package, in an environment of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, sdist)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A fresh environment in which the wheel has passed tools/test_wheel.py, and what that printed."""
    folder = tmp_path_factory.mktemp("fresh") / "env"
    return folder, run(sys.executable, ROOT / "tools/test_wheel.py", wheel, "--environment", folder)


def test_source_package_holds_all_sources_and_nothing_generated(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = {path for kind in ("pyx", "pxd", "h", "py", "pyi", "txt") for path in (ROOT / "src").rglob(f"*.{kind}")}
    sources |= {path for folder in ("tests", "tools", "examples") for path in (ROOT / folder).rglob("*.*")}
    sources |= {ROOT / name for name in ("Makefile", "pyproject.toml", "setup.py", "LICENSE")}
    wanted = {
        path.relative_to(ROOT).as_posix()
        for path in sources
        if not path.name.endswith((".pyc", "declared.pxd")) and ".egg-info" not in str(path)
    }
    assert wanted - names == set()
    assert [name for name in names if name.endswith(GENERATED) or name.startswith("benchmarks/build/")] == []
    assert [name for name in names if name.startswith("src/") and name.endswith((".c", "declared.pxd"))] == []


def test_wheel_runs_the_demo_without_a_compiler(environment):
    _, said = environment
    assert "Handshake RTT" in said and "10.20.0.80" in said
    assert said.splitlines()[-1].endswith("captures run without a compiler")


ENGINES = {
    "duckdb": """
import duckdb
print(*duckdb.sql("select count(*), count(distinct flow_id), min(epoch_ns(first_seen)) from scan").fetchall()[0])
""",
    "polars": """
import polars as pl
frame = pl.DataFrame(scan)
print(frame.height, frame["flow_id"].n_unique(), frame["first_seen"].dt.epoch("ns").min())
""",
    "pyarrow": """
rows = scan.to_pylist()
print(len(rows), len({row["flow_id"] for row in rows}), min(row["first_seen_ns"] for row in rows))
""",
}


@pytest.mark.parametrize("engine", ENGINES)
def test_engines_read_a_scan_where_there_is_no_pandas(environment, engine):
    import synfin

    folder, _ = environment
    python = folder / "bin/python"
    run(python, "-m", "pip", "install", "-q", "--only-binary", ":all:", engine)
    there = "import importlib.util as i; print([n for n in ('pandas', 'numpy') if i.find_spec(n)])\n"
    code = f"import sys, synfin\nscan = synfin.scan(sys.argv[1]){ENGINES[engine]}"
    said = run(python, "-c", there + code, ROOT / "examples", env={"PATH": os.defpath}, cwd=folder).splitlines()
    assert said[0] == "[]"
    rows = synfin.scan(ROOT / "examples").to_pylist()
    flows = {row["flow_id"] for row in rows}
    assert said[1].split() == [str(len(rows)), str(len(flows)), str(min(row["first_seen_ns"] for row in rows))]
