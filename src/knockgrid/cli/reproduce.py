"""reproduce: the tables of a figure on disk, and the figure drawn from them without the model."""

import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from transformer_lens.model_bridge import TransformerBridge

from knockgrid.cli import recipes
from knockgrid.cli.recipes.recipe import Recipe, Tables
from knockgrid.errors import InputError, missing_extra, unknown
from knockgrid.figures import save
from knockgrid.table.parquet import read_table, whole_file, write_table

SETTINGS = "recipe.json"
NAMES: list[str] = vars(recipes)["__all__"]
NEEDS = {"probes": ("sklearn", "scikit-learn")}
"""What an extra brings: the name to import and the name to install."""


def chosen(names: list[str]) -> list[str]:
    """The recipes asked for, `all` being every one.

    Raises:
        InputError: an unknown name.
    """
    for name in names:
        if name not in (*NAMES, "all"):
            raise unknown("figure", name, [*NAMES, "all"])
    return list(NAMES) if "all" in names else list(dict.fromkeys(names))


def recipe_of(name: str) -> Recipe:
    """The recipe of a figure.

    Raises:
        InputError: it needs an extra that is not installed.
    """
    recipe: Recipe = getattr(recipes, name)
    if recipe.extra:
        module, package = NEEDS[recipe.extra]
        if importlib.util.find_spec(module) is None:
            raise missing_extra(name, package, recipe.extra)
    return recipe


def reproduce(
    name: str, load: Callable[[], TransformerBridge], settings: dict, folder: Path
) -> Iterator[Path]:
    """Make the tables of one figure unless they are on disk already, and draw it from disk.

    Raises:
        InputError: the folder holds the figure's tables under other settings, or cannot be written.
    """
    recipe, own = recipe_of(name), folder / name
    if not _kept(own, settings):
        if own.exists() and not os.access(own, os.W_OK):
            raise InputError(f"{own} cannot be written to; choose another --out")
        for table_name, table in recipe.make(load(), settings["quick"]).items():
            write_table(table, own / f"{table_name}.parquet")
        with whole_file(own / SETTINGS) as file:
            file.write(json.dumps(settings, indent=2).encode())
    tables: Tables = {path.stem: read_table(path) for path in sorted(own.glob("*.parquet"))}
    yield from (own / f"{table_name}.parquet" for table_name in tables)
    for picture, drawn in recipe.draw(tables).items():
        yield from save(drawn, own / picture)


def _kept(folder: Path, settings: dict) -> bool:
    """Whether the tables are on disk; their settings are written last.

    Raises:
        InputError: they were made under other settings.
    """
    path = folder / SETTINGS
    if not path.is_file():
        return False
    try:
        old = dict(json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError, RecursionError):
        raise InputError(f"{path} is damaged; delete it, and the tables are made anew") from None
    differ = sorted(key for key in old | settings if old.get(key) != settings.get(key))
    if differ:
        raise InputError(
            f"{folder} holds tables of other settings ({', '.join(differ)}); choose another --out"
        )
    return True
