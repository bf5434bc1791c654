"""deploy/prometheus: promtool tries every alert, and all that alerts ask for is declared in synfin.sidecar.metrics."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from promql import unknown_in

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
RULES, CASES = FOLDER / "alerts.yml", FOLDER / "alerts_test.yml"


def expressions():
    """The queries of the alerts by name; of either form that the file has, on one line or indented below."""
    found = re.findall(r"- alert: (\w+)\n +expr: (?:\|\n((?: {10,}.+\n)+)|(.+)\n)", RULES.read_text())
    return {name: below or line for name, below, line in found}


def promtool(*arguments):
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian package prometheus)")
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_promtool_takes_the_rules():
    code, said = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert code == 0 and f"{len(expressions())} rules found" in said, said


def test_promtool_takes_the_configuration_that_reads_them():
    code, said = promtool("check", "config", FOLDER / "prometheus.yml")
    assert code == 0 and "1 rule files found" in said, said


def test_every_alert_fires_when_it_should_and_only_then():
    code, said = promtool("test", "rules", CASES)
    assert code == 0, said


def test_every_alert_is_tried():
    fired = re.findall(r"alertname: (\w+)\n +exp_alerts:\n", CASES.read_text())
    assert len(expressions()) > 10 and set(fired) == set(expressions())


@pytest.mark.parametrize(
    "old, new",
    [
        ("> 500\n", "> 5000\n"),
        ("0.8 * 28232", "0.9 * 28232"),
        ("> 0.2\n", "> 0.31\n"),
        ("[15m] offset 15m", "[15m] offset 60m"),
    ],
)
def test_another_threshold_would_show(tmp_path, old, new):
    text = RULES.read_text()
    assert old in text
    (tmp_path / RULES.name).write_text(text.replace(old, new))
    shutil.copy(CASES, tmp_path)
    assert promtool("test", "rules", tmp_path / CASES.name)[0] == 1


@pytest.mark.parametrize("name, expression", expressions().items())
def test_alerts_ask_for_what_there_is(name, expression):
    assert unknown_in(expression) == []


def test_metrics_named_in_texts_exist():
    named = re.findall(r"\(?(synfin_\w+)", " ".join(re.findall(r"description: (.+)", RULES.read_text())))
    assert named and all(unknown_in(name) == [] for name in named)


@pytest.mark.parametrize(
    "expression, wrong",
    [
        ("synfin_packets", ["synfin_packets"]),
        ('synfin_ends{state="TIMEWAIT"}', ["synfin_ends{state}: TIMEWAIT"]),
        ('synfin_ends{state=~"CLOSE-WAIT|CLOSED"}', ["synfin_ends{state}: CLOSED"]),
        ('synfin_records{worker="0"}', ["synfin_records{worker}"]),
        ("rate(synfin_records[5m])", ["a gauge over a range: synfin_records"]),
        ("max_over_time(synfin_syns_total[5m])", ["a counter over a range: synfin_syns_total"]),
        ("sum by (interface) (synfin_records)", ["interface"]),
        ('sum by (instance, state) (synfin_ends{instance=~"a.*", state=~"CLOSE-WAIT|TIME-WAIT"})', []),
        ("histogram_quantile(0.5, sum by (le) (rate(synfin_rtt_client_seconds_bucket[1m])))", []),
    ],
)
def test_what_is_not_there_is_found(expression, wrong):
    assert unknown_in(expression) == wrong
