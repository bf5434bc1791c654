"""The guard of instructions for each packet: what it calls over budget, and what it says then."""

import json

import guard
import pytest


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs the guard with figures instead of callgrind; returns its exit status and what it printed."""
    budget = tmp_path / "budget.json"
    budget.write_text(json.dumps({"compiler": "GCC 12, x86_64", "instructions": {"snap": 1000.0, "churn": 2000.0}}))
    monkeypatch.setattr(guard, "BUDGET", budget)
    monkeypatch.setattr(guard.shutil, "which", lambda name: name)

    def go(figures, *arguments, compiler="GCC 12, x86_64"):
        monkeypatch.setattr(guard, "measured", lambda folder: iter(figures.items()))
        monkeypatch.setattr(guard, "compiler", lambda: compiler)
        monkeypatch.setattr("sys.argv", ["guard.py", "--folder", str(tmp_path), *arguments])
        return guard.main(), capsys.readouterr().out

    go.budget = budget
    return go


def test_three_percent_more_is_allowed(run):
    status, said = run({"snap": 1030.0, "churn": 1500.0})
    assert status == 0
    assert "+3.0%" in said and "-25.0%" in said


def test_more_fails_with_the_figure_and_the_way_to_accept_it(run):
    status, said = run({"snap": 1031.0, "churn": 2000.0})
    assert status == 1
    assert "1031.0" in said and "3%: snap." in said and "--accept" in said


def test_a_workload_without_budget_fails(run):
    assert run({"snap": 1.0, "churn": 1.0, "new": 1.0})[0] == 1


def test_accepted_figures_are_the_next_budget(run):
    assert run({"snap": 5000.0}, "--accept")[0] == 0
    assert json.loads(run.budget.read_text())["instructions"] == {"snap": 5000.0}
    assert run({"snap": 5100.0})[0] == 0


def test_another_compiler_is_no_failure(run):
    status, said = run({"snap": 9000.0}, compiler="clang 19, x86_64")
    assert status == 0
    assert "skipped" in said and "clang 19" in said


def test_without_valgrind_it_says_what_is_missing(run, monkeypatch):
    monkeypatch.setattr(guard.shutil, "which", lambda name: None)
    status, said = run({"snap": 9000.0})
    assert status == 0 and "valgrind" in said


def test_the_stored_budget_has_every_workload():
    stored = json.loads((guard.HERE / "budget.json").read_text())
    assert stored["instructions"].keys() == {case.name.removeprefix("guard-") for case in guard.WORKLOADS}


def test_a_profile_that_counted_nothing_is_an_error():
    assert guard.total_of("events: Ir\nsummary: 7\ntotals: 12\n") == 12
    with pytest.raises(RuntimeError, match="counted nothing"):
        guard.total_of("events: Ir\ntotals: 0\n")
