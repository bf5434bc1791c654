"""deploy/live.toml: it loads, names every key with its default, and the systemd unit that reads it is sound."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from synfin.settings import Settings
from synfin.sidecar.config import RELOADABLE, LiveConfig, key_of
from synfin.sidecar.snapshot import STUCK_SECONDS

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
EXAMPLE = DEPLOY / "live.toml"
UNIT = DEPLOY / "systemd" / "synfin-live.service"
#: A key that is switched off, as against prose.
_OFF = re.compile(r"^# ([a-z][a-z-]*) = (.+)$", re.MULTILINE)


def fields():
    """Every key with its field's name and default."""
    own = {
        key_of(each): (each.name, each.default) for each in dataclasses.fields(LiveConfig) if each.name != "settings"
    }
    return own | {each.name.replace("_", "-"): (each.name, each.default) for each in dataclasses.fields(Settings)}


def test_it_loads():
    config = LiveConfig.of({}, EXAMPLE)
    assert config.interfaces == ("eth0",) and config.out == "/var/lib/synfin" and config.metrics == ("127.0.0.1", 9108)
    assert config.settings == Settings()


def test_it_names_every_key_once():
    text = EXAMPLE.read_text()
    named = [*tomllib.loads(text), *(key for key, _ in _OFF.findall(text))]
    assert sorted(named) == sorted(fields())


@pytest.mark.parametrize("key, value", _OFF.findall(EXAMPLE.read_text()))
def test_what_is_switched_off_is_valid_and_shows_the_default(tmp_path, key, value):
    file = tmp_path / "one.toml"
    file.write_text(f"{key} = {value}\n")
    config = LiveConfig.of({}, file)
    name, default = fields()[key]
    if key == "snaplen":  # decided with the checksums, in synfin.sources.live
        from synfin.sources.live import SNAPLEN as default
    if default not in (None, ()):
        assert getattr(config if hasattr(config, name) else config.settings, name) == default


def test_it_says_what_a_reload_brings_into_force():
    """A paragraph of comment, and the keys below it; (SIGHUP) stands once for each key."""
    for paragraph in EXAMPLE.read_text().split("\n\n")[1:]:
        keys = [key for key, _ in _OFF.findall(paragraph)] + re.findall(r"^([a-z-]+) = ", paragraph, re.MULTILINE)
        safe = [key for key in keys if fields()[key][0] in RELOADABLE]
        assert paragraph.count("(SIGHUP)") == len(safe), paragraph


# ------------------------------------------------------------------------------------------------ the systemd unit


@pytest.fixture
def unit(tmp_path):
    """The unit with a program that is there, since systemd-analyze looks for it."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (Debian package systemd)")
    text, found = re.subn(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", UNIT.read_text())
    assert found == 1
    path = tmp_path / UNIT.name
    path.write_text(text)
    return path


def analyze(*arguments):
    done = subprocess.run(["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_systemd_takes_the_unit(unit):
    code, said = analyze("verify", "--man=no", unit)
    assert (code, said) == (0, "")


def test_a_mistake_in_it_would_show(unit):
    unit.write_text(unit.read_text().replace("Type=notify", "Type=notfy"))
    code, said = analyze("verify", "--man=no", unit)
    assert code or "notfy" in said


def test_its_exposure(unit):
    """systemd's measure, 0 to 10; what is left is packet sockets, CAP_NET_RAW, counters of the host and the endpoint."""
    code, said = analyze("security", "--offline=true", "--threshold=18", unit)
    assert code == 0, said


def test_whatever_ends_a_run_badly_is_followed_by_another():
    """systemd takes exit code 0, SIGHUP, SIGINT, SIGTERM and SIGPIPE for success (systemd.service(5)), and none of them ends a run
    in test_crashes.py. How often is not limited: a capture that stands still is worse than one that stutters.
    """
    settings = dict(re.findall(r"(?m)^([A-Za-z]+)=(.*)$", UNIT.read_text()))
    assert settings["Restart"] == "on-failure" and int(settings["RestartSec"]) > 0
    assert settings["StartLimitIntervalSec"] == "0"
    # The watchdog's signal is SIGABRT by default, and what it brings about counts as a failure; its messages come of the
    # process itself. It waits longer than a worker must stand still, and than the look that finds it out.
    others = ("SuccessExitStatus", "RestartPreventExitStatus", "WatchdogSignal", "NotifyAccess", "IgnoreSIGPIPE")
    assert not settings.keys() & set(others)
    assert int(settings["WatchdogSec"]) > STUCK_SECONDS + 2


def test_it_gives_what_capture_needs_and_no_more():
    given = re.findall(r"(?m)^([A-Za-z]+)=(.*)$", UNIT.read_text())
    settings = dict(given)
    assert settings["AmbientCapabilities"] == settings["CapabilityBoundingSet"] == "CAP_NET_RAW"
    assert {"AF_PACKET", "AF_NETLINK", "AF_UNIX", "AF_INET"} <= set(settings["RestrictAddressFamilies"].split())
    assert settings["Type"] == "notify" and int(settings["WatchdogSec"]) > 2 * 10
    config = LiveConfig.of({}, EXAMPLE)
    assert settings["ReadWritePaths"] == config.out == f"/var/lib/{settings['StateDirectory']}"
    assert config.user is None and settings["User"] != "root"
    assert settings["ExecStart"].endswith(" live --config /etc/synfin/live.toml")
    # capset drops what is left (synfin.sidecar.privileges); it stands in a group that is taken away before.
    assert [value for name, value in given if name == "SystemCallFilter"][1:] == ["~@privileged @resources", "capset"]
