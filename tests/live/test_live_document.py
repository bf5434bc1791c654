"""docs/live.md: what it names is there, its queries run, and its commands are those of the files in deploy/."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import pytest
from promql import unknown_in
from test_deployed_containers import instructions

import synfin
from synfin.cli.live import live
from synfin.schema import FLOWS, INTERVALS
from synfin.settings import Settings
from synfin.sidecar.config import LiveConfig, key_of

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "live.md").read_text()
EXAMPLES = ROOT / "examples"


def test_every_alert_is_explained():
    rules = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text()
    alerts = set(re.findall(r"- alert: (\w+)", rules))
    table = TEXT.split("### What each alert sees")[1].split("\n\n")[1]
    assert set(re.findall(r"`(Synfin\w+)`", table)) == alerts
    assert set(re.findall(r"\bSynfin\w+", TEXT)) == alerts


def test_metrics_that_it_names_exist():
    named = set(re.findall(r"\bsynfin_\w+", TEXT))
    assert len(named) > 8 and [name for name in named if unknown_in(name)] == []


def test_keys_that_it_sets_exist():
    keys = {key_of(each) for each in dataclasses.fields(LiveConfig)} | {
        each.name.replace("_", "-") for each in dataclasses.fields(Settings)
    }
    assert {key for key in re.findall(r"`([a-z-]+) = [^`]*`", TEXT)} <= keys


def test_columns_that_it_names_exist():
    columns = {column.name for column in (*FLOWS, *INTERVALS)}
    named = set(re.findall(r"`((?:client|server|rtt|vlan|outer|odd)_\w+)`", TEXT))
    assert len(named) > 8 and named <= columns


def test_queries_run():
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as database:
        flows = synfin.read(str(EXAMPLES))
        database.register("flows", flows)
        database.register("interim", flows)  # of the same columns
        first, open_ones = re.findall(r"```sql\n(.+?)```", TEXT, re.DOTALL)
        first = database.sql(first).fetchall()
        assert database.sql(open_ones).fetchall() == []  # all have ended since
        database.register("flows", flows.slice(0, 0))
        second = database.sql(open_ones).fetchall()
    rows = flows.select(["time_wait_side", "server_state"]).to_pylist()
    assert sum(row[-1] for row in first) == sum(row["time_wait_side"] in ("client", "both") for row in rows) > 5
    assert sum(row[2] for row in second) == sum(row["server_state"] == "CLOSE-WAIT" for row in rows) == 1


def test_the_container_is_run_as_the_image_says():
    """Both places that show `docker run` show the same, and what follows the image's name is a command of synfin."""
    shown = re.search(r"docker run .+?\n.+", TEXT)[0].replace("\\\n", " ")
    comment = re.search(r"docker run .+?\n.+", (ROOT / "deploy" / "Dockerfile").read_text())[0].replace("\\\n#", " ")
    assert shlex.split(shown) == shlex.split(comment)
    command, *arguments = shlex.split(shown)[shlex.split(shown).index("synfin") + 1 :]
    with live.make_context(command, arguments) as context:
        assert context.params["interfaces"] == ("eth0",)
    volume = re.search(r"-v synfin:(\S+)", shown)[1]
    assert [rest for name, rest in instructions() if name == "VOLUME"] == [volume] == [context.params["out"]]
