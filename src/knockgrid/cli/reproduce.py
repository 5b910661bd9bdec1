"""reproduce: run a study, keep its tables on disk, and draw from them without the model.

A study is one script: a docstring whose first line is its title, `make(model, quick)` for its
tables by name, `draw(tables)` for its pictures by name, `EXTRA` if it needs an extra, and
`study(__file__)` at its end. Heavy imports happen inside functions, since the shell asks here for
the names of the studies. Its sweep may stand in a study file of the same name, for
`swept(__file__, model)` and for `knockgrid sweep`.
"""

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from knockgrid.cli.given import DEMO_RELATIONS as DEMO_RELATIONS
from knockgrid.errors import InputError, missing_extra, unknown

SETTINGS = "study.json"
NEEDS = {"probes": ("sklearn", "scikit-learn")}
"""What an extra brings: the name to import and the name to install."""
END = "study(__file__)"
"""What tells a study from the other scripts of the folder."""
RELATIONS = ("country_capital_city", "country_language", "landmark_in_city", "us_city_state")


def study(script: str) -> None:
    """Run the study in a script, with the options of `knockgrid reproduce`."""
    from knockgrid.cli.app import main

    sys.argv[1:1] = ["reproduce", script]
    main()


def folder() -> Path:
    """Where the studies are: in the installed package, or beside `src/` in an editable install."""
    package = Path(__file__).parents[1]
    installed = package / "experiments"
    return installed if installed.is_dir() else package.parents[1] / "experiments"


def studies(where: Path | None = None) -> dict[str, Path]:
    """The scripts of all studies by name; none is run."""
    scripts = sorted((where or folder()).glob("*.py"))
    return {path.stem: path for path in scripts if END in path.read_text("utf-8")}


def chosen(names: Iterable[str]) -> dict[str, Path]:
    """The scripts asked for, by name or as files of the user's own; `all` is every bundled one."""
    known, found = studies(), dict[str, Path]()
    for name in names:
        asked = known if name == "all" else {Path(name).stem: known.get(name, Path(name))}
        for stem, script in asked.items():
            if script.suffix != ".py":
                raise unknown("study", name, [*known, "all"])
            if not script.is_file():
                raise InputError(f"{script} is not there; give a study's name or its script")
            if found.setdefault(stem, script).resolve() != script.resolve():
                raise InputError(f"two studies are called {stem}; rename {script}")
    return found


def read_study(script: Path) -> ModuleType:
    """The study in a script, ready to run."""
    loader = SourceFileLoader(f"study_{script.stem}", str(script))
    found = ModuleType(loader.name)
    found.__file__ = str(script)
    loader.exec_module(found)
    lacking = [name for name in ("make", "draw") if not callable(getattr(found, name, None))]
    if lacking:
        raise InputError(f"{script} has no {lacking[0]}(); a study defines make() and draw()")
    extra = getattr(found, "EXTRA", None)
    if extra is not None:
        module, package = NEEDS[extra]
        if importlib.util.find_spec(module) is None:
            raise missing_extra(script.stem, package, extra)
    return found


def reproduce(
    study: ModuleType, load: Callable[[], Any], settings: dict, own: Path
) -> Iterator[Path]:
    """Make the tables of a study unless they are on disk already, and draw them from disk."""
    from knockgrid.figures import save
    from knockgrid.table.parquet import read_table, whole_file, write_table

    if not kept(own, settings):
        if own.exists() and not os.access(own, os.W_OK):
            raise InputError(f"{own} cannot be written to; choose another --out")
        for name, table in study.make(load(), settings["quick"]).items():
            write_table(table, own / f"{name}.parquet")
        with whole_file(own / SETTINGS) as file:
            file.write(json.dumps(settings, indent=2).encode())
    tables = {path.stem: read_table(path) for path in sorted(own.glob("*.parquet"))}
    yield from (own / f"{name}.parquet" for name in tables)
    for picture, drawn in study.draw(tables).items():
        yield from save(drawn, own / picture)


def kept(own: Path, settings: dict) -> bool:
    """Whether the tables are on disk, with the same settings, which are written last."""
    path = own / SETTINGS
    if not path.is_file():
        return False
    try:
        old = dict(json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError, RecursionError):
        raise InputError(f"{path} is damaged; delete it to make the tables again") from None
    differ = sorted(key for key in old | settings if old.get(key) != settings.get(key))
    if differ:
        names = ", ".join(differ)
        raise InputError(
            f"{own} holds tables made with other settings ({names}); choose another --out"
        )
    return True


# What the scripts share


def swept(script: str | Path, model: Any, **changes: Any) -> Any:
    """The table of the study file beside a script, in memory, with some of its fields changed."""
    from knockgrid.engine.in_memory import sweep_in_memory
    from knockgrid.runs.choose import choose_prompts
    from knockgrid.runs.job import treatments_of
    from knockgrid.runs.study import read_spec
    from knockgrid.spec import OF_A_FOLDER, OPTIONS

    spec = read_spec(Path(script).with_suffix(".yaml"), changes)
    options = {name: getattr(spec, name) for name in OPTIONS if name not in OF_A_FOLDER}
    prompts, rows = choose_prompts(spec, model).prompts, treatments_of(spec, model)
    return sweep_in_memory(model, prompts, rows, **options)


def known_facts(model: Any, limit: int, relations: Iterable[str] = RELATIONS) -> list[Any]:
    """Facts that the model knows, of each relation in turn, `limit` at most."""
    from knockgrid.runs.choose import choose_prompts
    from knockgrid.spec import Spec

    spec = Spec(relations=tuple(relations), known=True, limit=limit)
    return list(choose_prompts(spec, model).prompts)


def evenly(prompts: Iterable[Any], n: int) -> list[Any]:
    """At most n prompts, drawn from their relations in turn and sorted by relation and id."""
    from knockgrid.runs.choose import in_turn

    return sorted(in_turn(list(prompts))[:n], key=lambda prompt: (prompt.relation, prompt.id))


def some_layers(model: Any, step: int) -> list[int]:
    """Every `step`-th layer, and the last one."""
    n = int(model.cfg.n_layers)
    return sorted({*range(0, n, step), n - 1})
