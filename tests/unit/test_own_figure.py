"""A figure is one file and one line: Python and the shell know it by what it says of itself."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import knockgrid as kg
from knockgrid import figures
from knockgrid.errors import InputError
from knockgrid.figures import Figure
from knockgrid.figures.figure import figure_names
from knockgrid.reports.draw import draw
from knockgrid.table.table import build

MINE = '''"""mine: one bar per intervention at the last layer."""

from knockgrid.figures.canvas import drawing
from knockgrid.figures.figure import Figure
from knockgrid.table.table import grid


@Figure.of()
def mine(table, metric="kl", *, ax=None, limits=None, title=None):
    """Draw a bar for each intervention. It is that of the last layer."""
    values = grid(table, metric)
    with drawing(3, 2, ax) as ax:
        ax.bar(values.index, values.iloc[:, -1])
    return ax
'''
LINE = "from .mine import mine as mine\n"
CODE = """
import sys
from pathlib import Path
import knockgrid, knockgrid.runs.store
from knockgrid import figures
from knockgrid.cli.app import main
from knockgrid.table.table import build

assert Path(knockgrid.__file__).is_relative_to(sys.argv[1]), knockgrid.__file__
cells = [{"prompt": "a", "intervention": "last", "layer": 0, "kl": 0.5, "group": "g"}]
table = build(cells, {"unit": "nats"})
assert figures.mine(table).patches[0].get_height() == 0.5
knockgrid.runs.store.open_run = lambda folder: table
sys.argv[1:] = ["figure", sys.argv[2], "--kind", "mine", *sys.argv[3:]]
main()
"""
ROWS = [
    {"prompt": p, "intervention": "last", "layer": i, "js": 0.1, "group": p}
    for p in "ab"
    for i in range(2)
]


@pytest.mark.parametrize("by", [(), ("--by", "group")])
def test_a_figure_is_one_file_and_one_line(tmp_path: Path, by: tuple[str, ...]) -> None:
    source = Path(kg.__file__).parent
    room = tmp_path / "src" / "knockgrid" / "figures"
    shutil.copytree(source, room.parent, ignore=shutil.ignore_patterns("__pycache__"))
    (room / "mine.py").write_text(MINE)
    with (room / "__init__.pyi").open("a") as stub:
        stub.write(LINE)
    src = str(tmp_path / "src")
    command = [sys.executable, "-c", CODE, src, str(tmp_path / "run"), *by]
    given = {**os.environ, "PYTHONPATH": src}
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "figures" / "mine_kl.png").exists()


def test_the_names_are_those_of_the_figures() -> None:
    made = [n for n in vars(figures)["__all__"] if isinstance(getattr(figures, n), Figure)]
    assert sorted(figure_names()) == sorted(made)
    assert "layer_heatmap" in made


@pytest.mark.parametrize("name", figure_names())
def test_a_figure_says_what_it_draws(name: str) -> None:
    figure = getattr(figures, name)
    assert figure.name == name
    assert figure.metric == ("kl" if name == "token_heatmap" else "js")
    assert figure.help.startswith("Draw ")
    assert figure.by == {"contrast_curves": "itself", "scaled_curves": "no"}.get(name, "panels")
    if figure.needs is not None:
        with pytest.raises(InputError, match=f"{figure.needs}.*per_{figure.needs}"):
            figure(build(ROWS, {}))


def test_panels_of_a_figure_without_any(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="scaled_curves.*--by"):
        draw(build(ROWS, {}), tmp_path, kind="scaled_curves", by="group")
