"""Documents that are generated or tried: they say what the code says today."""

from __future__ import annotations

import doctest
import re

import pytest
import render_docs

from synfin import schema, states

ROOT = render_docs.ROOT
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / ".github").rglob("*.md")]
_LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(#[\w-]+)?\)")


def test_nothing_is_stale(monkeypatch):
    monkeypatch.setattr(render_docs.docs_recipes, "has_tshark", lambda: False)  # test_recipes.py counts those
    stale = [str(path.relative_to(ROOT)) for path, text in render_docs.documents().items() if path.read_text() != text]
    assert not stale, "run `make docs`"


def test_every_generated_part_is_used_and_known():
    names = [name for path in DOCUMENTS for _, name, _ in render_docs._PART.findall(path.read_text())]
    assert sorted(names) == sorted(render_docs.PARTS)


def test_a_part_that_differs_in_time_only_is_not_stale(monkeypatch):
    text = "<!-- begin: demo -->\n5 packets, in 0.07 s (10,315 packets/s)\n<!-- end: demo -->"
    monkeypatch.setitem(render_docs.PARTS, "demo", lambda: "5 packets, in 1.20 s (4 packets/s)")
    assert render_docs.rendered(text) == text
    monkeypatch.setitem(render_docs.PARTS, "demo", lambda: "6 packets, in 1.20 s (4 packets/s)")
    assert "6 packets, in 1.20 s (4 packets/s)" in render_docs.rendered(text)


def test_python_examples(monkeypatch):
    monkeypatch.chdir(ROOT)
    result = doctest.testfile(str(ROOT / "docs" / "python.md"), module_relative=False, report=True)
    assert result.attempted > 20 and not result.failed


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    for target, _ in _LINK.findall(document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_columns_document_names_every_column():
    text = (ROOT / "docs" / "columns.md").read_text()
    missing = [
        column.name for table in schema.TABLES.values() for column in table if f"| `{column.name}`{' (o)' * column.optional} |" not in text
    ]
    assert not missing


def test_states_document_has_every_arrow_and_every_cell():
    text = (ROOT / "docs" / "states.md").read_text()
    numbers = [int(number) for number in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)]
    assert numbers == list(range(1, 21))
    rows = re.findall(r"^\| \*\*([A-Z0-9-]+)\*\* \|(.+)\|$", text, re.MULTILINE)
    assert [state for state, _ in rows] == list(schema.STATES)
    cells = [cell.strip() for _, row in rows for cell in row.split(" | ")]
    assert len(cells) == len(states.EVENTS) * len(schema.STATES)
    assert set(cells) <= {"·", "odd", *schema.STATES}


def test_no_document_names_a_place_of_one_machine():
    for path in (path for path in DOCUMENTS if path.is_relative_to(ROOT)):
        assert not re.search(r"/(home|root|work|tmp)/", path.read_text()), path
