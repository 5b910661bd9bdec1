"""Python and the shell know a figure by what it says of itself."""

from pathlib import Path

import pytest

from knockgrid import figures
from knockgrid.errors import InputError
from knockgrid.figures import Figure
from knockgrid.figures.figure import figure_names
from knockgrid.reports.draw import draw
from knockgrid.table.table import build

ROWS = [
    {"prompt": p, "intervention": "last", "layer": i, "js": 0.1, "group": p}
    for p in "ab"
    for i in range(2)
]


def test_the_names_are_those_of_the_figures() -> None:
    made = [n for n in vars(figures)["__all__"] if isinstance(getattr(figures, n), Figure)]
    assert sorted(figure_names()) == sorted(made)
    assert "layer_heatmap" in made


@pytest.mark.parametrize("name", figure_names())
def test_a_figure_says_what_it_draws(name: str) -> None:
    figure = getattr(figures, name)
    assert figure.name == name
    assert figure.metric == ("kl" if name in ("token_heatmap", "span_heatmap") else "js")
    assert figure.help.startswith("Draw ")
    assert figure.by == {"contrast_curves": "itself", "scaled_curves": "no"}.get(name, "panels")
    if figure.needs is not None:
        with pytest.raises(InputError, match=f"{figure.needs}.*per_{figure.needs}"):
            figure(build(ROWS, {}))


def test_panels_of_a_figure_without_any(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="scaled_curves.*--by"):
        draw(build(ROWS, {}), tmp_path, kind="scaled_curves", by="group")
