"""The options of a live run and its TOML file: one declaration, and one line for what is wrong."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path

import click
import pytest

from synfin.cli.live import live
from synfin.errors import ConfigError
from synfin.settings import NS_PER_S, Settings
from synfin.sidecar.config import RELOADABLE, LiveConfig, key_of, option_of, parse_address, parse_keep


@pytest.fixture
def file(tmp_path):
    """Write a configuration; gives its path."""

    def write(text):
        path = tmp_path / "synfin.toml"
        path.write_text(text)
        return path

    return write


FULL = """
interfaces = ["eth0", "eth1"]
seconds = 2.5
workers = 3
ring = 128
block = 2048
block-timeout = "5ms"
snaplen = 256
filter = "tcp port 443"
promiscuous = false
timestamps = "software"
output = "rows"
format = "parquet"
table = "flows"
append = false
overwrite = false
columns = ["flow_id", "close"]
profile = "lakehouse"
roll = "1m"
roll-rows = 5000
interim = 30
keep = ["7d", "10G"]
metrics = "0.0.0.0:9108"
services = ["192.0.2.1:443", "[2001:DB8:0::1]:80"]
log-format = "json"
user = "nobody"
json = true
head = 3
attempt-timeout = "10s"
half-open-timeout = 20
idle-timeout = "30s"
one-sided-timeout = "30s"
closing-timeout = "30s"
time-wait = "60s"
reset-linger = "5s"
reorder = "0s"
interval = "500ms"
key = ["vlan", "tunnel"]
server-ports = "80,8000-8999"
checksum = "verify"
duplicates = "drop"
max-flows = 1000
by = ["service", "client"]
top = 50
"""


def test_every_key_is_read(file):
    config = LiveConfig.of({}, file(FULL))
    assert config.interfaces == ("eth0", "eth1") and config.out == "rows" and config.names == "flow_id,close"
    assert (config.seconds, config.workers, config.ring, config.block) == (2.5, 3, 128, 2048)
    assert (config.block_timeout, config.roll, config.interim) == (5_000_000, 60 * NS_PER_S, 30 * NS_PER_S)
    assert config.keep == (("ns", 7 * 86_400 * NS_PER_S), ("bytes", 10 << 30)) and config.metrics == ("0.0.0.0", 9108)
    assert config.services == (("192.0.2.1", 443), ("2001:db8::1", 80))
    assert config.settings == Settings(
        attempt_timeout=10 * NS_PER_S, half_open_timeout=20 * NS_PER_S, idle_timeout=30 * NS_PER_S,
        one_sided_timeout=30 * NS_PER_S, closing_timeout=30 * NS_PER_S, reset_linger=5 * NS_PER_S, reorder=0,
        interval=NS_PER_S // 2, key=("vlan", "tunnel"), server_ports=frozenset({80, *range(8000, 9000)}),
        checksum="verify", duplicates="drop", max_flows=1000,
        by=("service", "client"), top=50,
    )  # fmt: skip
    # And every key there is, but the one that excludes another, stands in this example.
    keys = {key_of(each) for each in dataclasses.fields(LiveConfig) if each.name != "settings"}
    keys |= {each.name.replace("_", "-") for each in dataclasses.fields(Settings)}
    assert keys - set(tomllib.loads(FULL)) == {"max-memory"}


def test_the_example_of_the_documents(file):
    text = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text()
    example = re.search(r"```toml\n(.+?)```", text, re.DOTALL)[1]
    config = LiveConfig.of({}, file(example))
    assert config.workers == 2 and config.metrics == ("127.0.0.1", 9108) and len(config.keep) == 2
    reloadable = re.search(r"what can change meanwhile does \((.+?)\)", text)[1]
    assert set(re.findall(r"`(.+?)`", reloadable)) == {name.replace("_", "-") for name in RELOADABLE}


def test_every_option_is_a_key():
    """The command's long options, less what is about the file itself, are the file's keys; and the other way round."""
    options = {
        name
        for parameter in live.params
        if isinstance(parameter, click.Option)
        for name in parameter.opts
        if name.startswith("--")
    } - {"--config"}
    keys = {key_of(each) for each in dataclasses.fields(LiveConfig) if option_of(each)}
    keys |= {each.name.replace("_", "-") for each in dataclasses.fields(Settings)}
    assert options == {f"--{key}" for key in keys}


def given_by(arguments):
    """What a command line gives."""
    from synfin.cli.live import given_options

    with live.make_context("live", list(arguments)) as context:
        return given_options({k: v for k, v in context.params.items() if k not in ("interfaces", "file")})


def test_command_line_and_file_mean_the_same(file):
    said = {
        "--workers": ("3", "workers = 3"), "--block": ("2048", "block = 2048"), "--keep": ("7d", 'keep = "7d"'),
        "--metrics": ("[::1]:80", 'metrics = "[::1]:80"'), "--interim": ("5m", 'interim = "5m"'),
        "--key": ("vlan", 'key = "vlan"'), "--idle-timeout": ("30s", 'idle-timeout = "30s"'),
        "--columns": ("flow_id,close", 'columns = ["flow_id", "close"]'), "--snaplen": ("96", "snaplen = 96"),
        "--services": ("[::1]:443", 'services = "[::1]:443"'),
        "--by": ("client", 'by = "client"'), "--top": ("7", "top = 7"),
        "--max-memory": ("1G", 'max-memory = "1G"'), "--server-ports": ("80", 'server-ports = "80"'),
    }  # fmt: skip
    for option, (text, line) in said.items():
        assert LiveConfig.of(given_by([option, text])) == LiveConfig.of({}, file(line)), option
        assert LiveConfig.of(given_by([option, text])) != LiveConfig(), option
    assert LiveConfig.of(given_by(["--no-promiscuous"])) == LiveConfig.of({}, file("promiscuous = false"))
    assert LiveConfig.of(given_by([])) == LiveConfig.of({}, file("")) == LiveConfig()


def test_command_line_comes_first(file):
    config = LiveConfig.of(given_by(["--workers", "1", "--idle-timeout", "1s"]), file("workers = 4\nidle-timeout = '9s'\nring = 8"))
    assert (config.workers, config.settings.idle_timeout, config.ring) == (1, NS_PER_S, 8)


@pytest.mark.parametrize(
    "text, line",
    [
        ("worker = 3", "there is no key 'worker'; is 'workers' meant?"),
        ("[metrics]\nport = 3", "metrics: must be a port or HOST:PORT, not {'port': 3}"),
        ("zzz = 3", "there is no key 'zzz'; there are append,"),
        ('workers = "3"', "workers: must be a whole number, not '3'"),
        ("workers = true", "workers: must be a whole number, not true"),
        ("workers = 65", "workers: must be at least 1 and at most 64, not 65"),
        ("promiscuous = 1", "promiscuous: must be true or false, not 1"),
        ('timestamps = "card"', "timestamps: must be one of auto, hardware, software, not 'card'"),
        ("output = 3", "output: must be a text, not 3"),
        ("interfaces = [1]", "interfaces: must be a text, not 1"),
        ('roll = "soon"', "roll: 'soon' is not a duration"),
        ("roll = 0", "roll: must be longer than 0"),
        ("roll = 2.5", "roll: must be a duration such as 75s, 5m or 500ms, not 2.5"),
        ('keep = "10"', "keep: '10' is neither an age such as 7d nor a size such as 10G"),
        ('metrics = "eth0"', "metrics: 'eth0' is no port or HOST:PORT"),
        ('services = ["eth0:80"]', "services: 'eth0:80' is no service; write it like 192.0.2.1:443"),
        ('services = ["192.0.2.1"]', "services: '192.0.2.1' is no service"),
        ('services = "192.0.2.256:80"', "services: '192.0.2.256:80' is no service"),
        ('services = "192.0.2.1:65536"', "services: '192.0.2.1:65536' is no service"),
        ('services = "[fe80::1%eth0]:80"', "services: '[fe80::1%eth0]:80' is no service"),
        ('idle-timeout = "0s"', "idle-timeout: idle_timeout must be longer than 0"),
        ('checksum = "maybe"', "checksum: checksum can be 'ignore' or 'verify', not 'maybe'"),
        ('by = "server"', "by: tables by key are by service or client, not by server"),
        ("top = 0", "top: top must be a whole number from 1 to 100000, not 0"),
        ('max-flows = "many"', "max-flows: must be a whole number, not 'many'"),
        ("workers = = 3", "no TOML: Invalid value (at line 1, column 11)"),
    ],
)
def test_what_is_wrong_is_one_line_with_file_and_key(file, text, line):
    path = file(text)
    with pytest.raises(ConfigError) as told:
        LiveConfig.of({}, path)
    assert str(told.value).startswith(f"{path}: {line}") and "\n" not in str(told.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*none\.toml: no such file or directory"):
        LiveConfig.of({}, tmp_path / "none.toml")


@pytest.mark.parametrize(
    "text, meant",
    [("7d", ("ns", 7 * 86_400 * NS_PER_S)), ("5m", ("ns", 300 * NS_PER_S)), ("5M", ("bytes", 5 << 20)), ("10GiB", ("bytes", 10 << 30))],
)
def test_an_age_or_a_size(text, meant):
    assert parse_keep(text) == meant


@pytest.mark.parametrize(
    ("text", "message"),
    [("7", "neither an age"), ("1.5", "neither an age"), ("soon", "neither an age"), ("-1d", "neither an age"), ("", "neither an age"),
     ("0d", "for no time"), ("0G", "no space")],
)  # fmt: skip
def test_what_cannot_be_kept(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_keep(text)


@pytest.mark.parametrize("line", ["seconds = inf", "seconds = nan", "seconds = 1e300", 'interim = "200000d"', "roll-rows = 9223372036854775808"])
def test_numbers_that_no_clock_or_counter_holds(file, line):
    with pytest.raises(ConfigError, match=r"at most|at least|nan"):
        LiveConfig.of({"interfaces": ("eth0",)}, file(line))


def test_seconds_that_are_no_number():
    with pytest.raises(ConfigError, match="not nan"):
        LiveConfig(seconds=float("nan"))


def test_addresses():
    assert parse_address("9108") == ("127.0.0.1", 9108) and parse_address("[::]:1") == ("::", 1)
    assert parse_address("metrics.example:0") == ("metrics.example", 0) and parse_address("*:9108") == ("", 9108)
    for wrong in ("", ":1", "65536", "a b:1", "::1:80", "[::1]", "-1"):
        with pytest.raises(ConfigError):
            parse_address(wrong)


def test_what_a_reload_takes(file):
    old = LiveConfig.of({"interfaces": ("eth0",)}, file('roll = "5m"'))
    new = LiveConfig.of({"interfaces": ("eth0",)}, file('roll = "1m"\nworkers = 2\nkeep = "1d"\nidle-timeout = "9s"'))
    config, others = old.reloaded(new)
    assert config == dataclasses.replace(old, roll=60 * NS_PER_S, keep=new.keep)
    assert sorted(others) == ["settings", "workers"]
    assert {"roll", "roll_rows", "interim", "keep"} == RELOADABLE


def test_services():
    with pytest.raises(ConfigError, match=r"listed twice: 2001:db8::1 port 80"):
        LiveConfig.of({"services": (("2001:db8::1", 80), ("192.0.2.1", 80), ("2001:db8::1", 80))})
    with pytest.raises(ConfigError, match="at most 1000 services"):
        LiveConfig(services=tuple(("192.0.2.1", port) for port in range(1001)))


def test_caps_and_workers():
    with pytest.raises(ConfigError, match="--max-memory"):
        LiveConfig(workers=2, settings=Settings(max_memory=1 << 30))
    with pytest.raises(ConfigError, match="--max-flows"):
        LiveConfig(workers=2, settings=Settings(max_flows=1))
