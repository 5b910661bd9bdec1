"""knockgrid reproduce: tables on disk, figures drawn from them, and what is refused."""

import json

import pytest

from knockgrid import InputError
from knockgrid.cli import recipes
from knockgrid.cli.recipes.recipe import Recipe
from knockgrid.cli.reproduce import chosen, recipe_of, reproduce
from knockgrid.figures import layer_heatmap
from knockgrid.table.table import build

SETTINGS = {"model": "demo", "quick": True}


def table():
    row = {"prompt": "rome", "intervention": "last", "layer": 0, "js": 0.3}
    return build([row], {"unit": "nats"})


@pytest.fixture
def made(monkeypatch):
    """A recipe whose makings are counted."""
    calls = []

    def make(model, quick):
        calls.append((model, quick))
        return {"one": table()}

    recipe = Recipe("one", make, lambda tables: {"one_js": layer_heatmap(tables["one"])})
    monkeypatch.setattr(recipes, "f1", recipe, raising=False)
    return calls


def test_a_figure_is_drawn_again_without_the_model(made, tmp_path):
    first = list(reproduce("f1", lambda: "model", SETTINGS, tmp_path))
    names = ["one.parquet", "one_js.pdf", "one_js.svg", "one_js.png"]
    assert [path.name for path in first] == names
    (tmp_path / "f1" / "one_js.svg").unlink()

    def no_model():
        raise AssertionError("the model was loaded")

    assert list(reproduce("f1", no_model, SETTINGS, tmp_path)) == first
    assert all(path.is_file() for path in first)
    assert made == [("model", True)]


def test_tables_of_other_settings_are_left_alone(made, tmp_path):
    list(reproduce("f1", lambda: "model", SETTINGS, tmp_path))
    with pytest.raises(InputError, match=r"other settings \(quick\); choose another --out"):
        list(reproduce("f1", lambda: "model", {**SETTINGS, "quick": False}, tmp_path))
    assert json.loads((tmp_path / "f1" / "recipe.json").read_text()) == SETTINGS


def test_an_interrupted_recipe_begins_again(made, tmp_path):
    list(reproduce("f1", lambda: "model", SETTINGS, tmp_path))
    (tmp_path / "f1" / "recipe.json").unlink()  # it is written last
    list(reproduce("f1", lambda: "model", SETTINGS, tmp_path))
    assert len(made) == 2


def test_names():
    assert chosen(["f3", "f3", "heads"]) == ["f3", "heads"]
    assert chosen(["f1", "all"]) == list(recipes.__all__)
    with pytest.raises(InputError, match="unknown figure 'f9'"):
        chosen(["f9"])


def test_every_recipe_is_complete():
    for name in recipes.__all__:
        recipe = recipe_of(name)
        assert recipe.title
        assert callable(recipe.make)
        assert callable(recipe.draw)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install "knockgrid\[probes\]"$'):
        recipe_of("f4")
