"""docs/recipes.md: every query is run on the examples, in DuckDB and in Polars, and gives the answer printed there."""

from __future__ import annotations

import docs_recipes
import pytest

PREPARING, RECIPES = docs_recipes.parse(docs_recipes.DOCUMENT.read_text())


@pytest.fixture(scope="module")
def workshop():
    """The rows of the examples, as the document's first command writes them."""
    for engine in ("duckdb", "polars"):
        pytest.importorskip(engine, reason=f"recipes are run with {engine}")
    shop = docs_recipes.Workshop(PREPARING)
    yield shop
    shop.close()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.title)
def test_answer(workshop, recipe):
    assert recipe.sql and recipe.polars and recipe.answer and recipe.filters
    for language, answer in workshop.answers(recipe).items():
        assert answer == recipe.answer, language


def test_every_question_is_there():
    assert len(RECIPES) >= 16
    assert {kind for kind, _ in PREPARING} == {"sql", "python"}


@pytest.mark.slow
@pytest.mark.skipif(not docs_recipes.has_tshark(), reason="display filters are counted by tshark and mergecap")
def test_display_filters_show_as_many_packets():
    filters = [item for recipe in RECIPES for item in recipe.filters]
    counts = docs_recipes.packets_shown(expression for expression, _ in filters)
    assert list(zip((expression for expression, _ in filters), counts, strict=True)) == filters
