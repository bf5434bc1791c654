"""The commands around `track`: schema, version, completion, help."""

import json
import re
import subprocess
import sys
from dataclasses import fields

import pytest

from synfin.cli.options import DURATIONS, human_duration
from synfin.cli.track import track
from synfin.errors import ConfigError
from synfin.schema import ENUMS, TABLES
from synfin.settings import Settings, parse_duration, parse_size


@pytest.mark.parametrize("table", TABLES)
def test_columns_as_json(synfin, table):
    code, out, _ = synfin("columns", "--table", table, "--format", "json")
    rows = json.loads(out)
    assert code == 0
    assert [row["name"] for row in rows] == [column.name for column in TABLES[table]]
    for row, column in zip(rows, TABLES[table], strict=True):
        assert row["doc"] == column.doc
        assert row["optional"] == column.optional
        assert tuple(row.get("values", ())) == ENUMS.get(column.kind.removeprefix("enum:"), ())


def test_types_are_those_of_the_arrow_schema(synfin):
    from synfin.output.arrow import Layout

    rows = json.loads(synfin("columns", "--format", "json")[1])
    names = {"timestamp[ns, tz=UTC]": "timestamp[ns, UTC]"}
    schema = Layout.choose("flows", [row["name"] for row in rows]).schema
    for row, field in zip(rows, schema, strict=True):
        kind = re.sub(r"dictionary<values=(\w+), indices=(\w+), ordered=0>", r"dictionary<\2, \1>", str(field.type))
        assert row["type"] == names.get(kind, kind)


@pytest.mark.parametrize(("width", "longest"), [("80", 80), ("60", 60), ("200", 96)])
def test_columns_fit_the_terminal(synfin, monkeypatch, width, longest):
    monkeypatch.setenv("COLUMNS", width)
    lines = synfin("columns")[1].splitlines()
    assert longest - 8 < max(map(len, lines)) <= longest


@pytest.mark.parametrize("kind", ["text", "markdown"])
@pytest.mark.parametrize("table", TABLES)
def test_columns_for_people(synfin, table, kind):
    code, out, _ = synfin("columns", "--table", table, "--format", kind)
    assert code == 0
    assert all(column.name in out for column in TABLES[table])
    assert out.count("(o)") == sum(column.optional for column in TABLES[table])
    assert kind == "markdown" or max(map(len, out.splitlines())) <= 100


def test_version(synfin):
    from importlib.metadata import PackageNotFoundError, version

    import synfin as package

    assert synfin("--version") == (0, f"synfin {package.__version__}\n", "")
    try:
        installed = version("synfin")
    except PackageNotFoundError:
        pytest.skip("synfin is not installed here")
    assert installed == package.__version__


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(synfin, shell):
    code, out, _ = synfin("completion", shell)
    assert code == 0 and "_SYNFIN_COMPLETE" in out


def test_completion_completes(start):
    import os

    words = {"_SYNFIN_COMPLETE": "bash_complete", "COMP_WORDS": "synfin track --time", "COMP_CWORD": "2"}
    run = subprocess.run(
        [sys.executable, "-m", "synfin"], env={**os.environ, **words}, capture_output=True, text=True, check=False
    )
    assert "plain,--time-wait" in run.stdout


def test_every_setting_is_an_option_with_its_default():
    options = {parameter.name: parameter for parameter in track.params}
    for field in fields(Settings):
        assert field.name in options and options[field.name].help
        if field.name in DURATIONS:
            assert human_duration(field.default) in options[field.name].help


@pytest.mark.parametrize("ns", [0, 1, 999, 75 * 10**9, 7440 * 10**9, 1_500_000_000, 3600 * 10**9 + 1])
def test_human_duration_is_read_back(ns):
    assert parse_duration(human_duration(ns)) == ns


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("4096B", 4096), ("512M", 512 << 20), ("2g", 2 << 30), ("1.5GiB", 3 << 29), ("64KB", 65536), ("1T", 1 << 40)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "1.M", "-1M", "1 M", "1P", "1e9", "0x10", "1,5G", "1Mb/s"])
def test_what_is_no_size(text):
    with pytest.raises(ConfigError, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize("wrong", [{"max_flows": 0}, {"max_flows": 2**31 + 1}, {"max_flows": True}, {"max_memory": 0}, {"max_memory": 1.5}, {"top": 0}, {"top": None}, {"top": 10**6}])
def test_caps_out_of_range(wrong):
    with pytest.raises(ConfigError, match=min(wrong)):
        Settings(**wrong)


def test_every_command_and_option_has_help():
    from synfin.cli.main import cli

    for name, command in cli.commands.items():
        assert command.help, name
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.name not in ("table", "kind", "help"):
                assert parameter.help, (name, parameter.name)


def test_bare_command_shows_help(synfin):
    code, out, err = synfin()
    assert code == 2 and "Usage: synfin" in out + err


def test_help_and_columns_import_nothing_heavy():
    code = (
        "import sys\n"
        "from synfin.cli.main import main\n"
        "for words in (['--help'], ['track', '--help'], ['columns'], ['--version']):\n"
        "    try: main(words)\n"
        "    except SystemExit as leaving: assert not leaving.code\n"
        "print([name for name in ('pyarrow', 'rich', 'numpy', 'pandas') if name in sys.modules])\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("capture", "message"),
    [
        ("-", "standard input is no file"), (".", ". is no file"), ("nothing.pcap", "no such file"), ("*.pcap", "no such file"),
    ],
)  # fmt: skip
def test_verify_takes_files_only(synfin, tmp_path, monkeypatch, capture, message):
    (tmp_path / "x.pcap").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    code, out, err = synfin("verify", capture)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1
