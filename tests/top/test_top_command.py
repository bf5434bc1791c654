"""The call of `synfin top`: what it takes, what it refuses, and what it prints where there is no terminal."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def test_what_cannot_be(run, folder, tmp_path):
    """One line and exit code 2."""
    for arguments, said in [
        ([], "Missing argument 'FOLDER|IFACE...'."),
        (["no-such-thing"], "'no-such-thing' is neither a folder nor an interface; interfaces are "),
        ([tmp_path], f"{tmp_path} holds no interval table; name the folder that "),
        ([tmp_path / "missing"], f"{tmp_path}/missing holds no interval table"),
        ([folder, folder], "name one folder, or interfaces of one tap"),
        ([folder, "lo"], "name one folder, or interfaces of one tap"),
        ([folder, "--workers", "2"], f"--workers is for an interface; the rows of {folder} are tracked already"),
        ([folder, "--time-wait", "5s"], "--time-wait is for an interface"),
        ([folder, "--window", "2h"], "the window is longer than nothing and at most 1h"),
        ([folder, "--window", "0"], "the window is longer than nothing"),
        ([folder, "--sort", "colour"], "Invalid value for '--sort'"),
        (["s3://bucket/rows"], "synfin top reads a folder of this machine, no URL"),
        ([folder, "--speed", "3"], "No such option"),
    ]:
        done = run("top", *arguments)
        assert done.returncode == 2 and done.stdout == "" and said in done.stderr, (arguments, done.stderr)
        assert len(done.stderr.splitlines()) == 1


def test_a_run_that_has_no_file_yet(run, tmp_path):
    (tmp_path / ".writing").mkdir()
    done = run("top", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"synfin: {tmp_path}: no complete file has a row of intervals yet\n"


def test_names_of_files_say_nothing_to_a_terminal(run, tmp_path):
    (tmp_path / "intervals").mkdir()
    (tmp_path / "intervals" / "a\x1b]0;owned\x07.parquet").write_text("junk")
    done = run("top", tmp_path, "--once")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"synfin: {tmp_path}: a\ufffd]0;owned\ufffd.parquet could not be read\n"


def test_a_pipe_gets_plain_text(run, folder):
    done = run("top", folder, "--sort", "syns", "--window", "5m")
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and done.stderr == "" and "\x1b" not in done.stdout
    assert max(map(len, lines)) <= 80 and len(lines) <= 25 and lines[14].startswith("by syns  ")
    assert run("top", folder, "--once", "--sort", "syns", "--window", "5m").stdout.splitlines()[1:] == lines[1:]
    many = run("top", folder, "--window", "5m", LINES="100", COLUMNS="200").stdout.splitlines()
    assert len(many) > 15 and max(map(len, many)) > 150


def test_by_chooses_the_table(run, folder):
    assert "\nCLIENTS  " in run("top", folder, "--by", "client").stdout
    assert "\nSERVICES  " in run("top", folder).stdout


def test_a_folder_without_tables_by_key(run, tmp_path, written):
    import shutil

    rows = tmp_path / "rows"
    shutil.copytree(written(), rows)
    shutil.rmtree(rows / "services")
    done = run("top", rows)
    assert done.returncode == 0 and "no rows by service in this window (--by service makes them)" in done.stdout


def test_an_old_terminal(folder):
    """An encoding without the signs that are used does not end it."""
    done = subprocess.run(
        [sys.executable, "-m", "synfin", "top", folder], capture_output=True, check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "80"},
    )  # fmt: skip
    assert done.returncode == 0 and b"10.6ms" in done.stdout and b"?s" in done.stdout


@pytest.mark.skipif(sys.platform == "linux" and os.geteuid() == 0, reason="is root, who may listen")
def test_no_right_to_listen(run):
    done = run("top", "lo")
    assert done.returncode == 2 and "CAP_NET_RAW" in done.stderr
