"""Figures as files, in a process and in a notebook: whole, the same bytes, nothing left behind."""

import os
import subprocess
import sys

import matplotlib
import matplotlib.figure
import pytest
from test_figures import table

from knockgrid.errors import InputError
from knockgrid.figures import layer_curve, layer_heatmap, panels, save


@pytest.mark.parametrize("suffix", ["", ".pdf", ".svg", ".png"])
def test_a_suffix_writes_one_file_and_none_all_three(tmp_path, suffix):
    names = [f"flow{one}" for one in ([suffix] if suffix else [".pdf", ".svg", ".png"])]
    paths = save(layer_heatmap(table()), tmp_path / "new" / f"flow{suffix}")
    assert [path.name for path in paths] == names
    heads = {".pdf": b"%PDF-", ".svg": b"<?xml", ".png": b"\x89PNG\r"}
    assert all(path.read_bytes().startswith(heads[path.suffix]) for path in paths)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == sorted(names)


def test_a_failed_save_leaves_nothing(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="unknown suffix '.pgn'; did you mean '.png'"):
        save(layer_heatmap(table()), tmp_path / "flow.pgn")
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save(layer_heatmap(table()), tmp_path / "flow")
    assert list(tmp_path.iterdir()) == []


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from knockgrid.figures import layer_curve, layer_heatmap, panels, save
from test_figures import hole, table
made = hole(table(groups=("FA", "AH"), noise_floor=0.2), (0, 2))
save(panels(made), {folder!r} + "/panels")
save(layer_curve(made), {folder!r} + "/curve")
"""


def test_files_are_the_same_bytes_in_every_process(tmp_path):
    seen = []
    for run, clock in (("one", "0"), ("two", "4000000000")):
        script = SCRIPT.format(tests=os.path.dirname(__file__), folder=str(tmp_path / run))
        # another date and another hash seed: what differs between two days
        env = {**os.environ, "SOURCE_DATE_EPOCH": clock, "PYTHONHASHSEED": clock}
        subprocess.run([sys.executable, "-c", script], check=True, env=env)
        seen.append({path.name: path.read_bytes() for path in (tmp_path / run).iterdir()})
    assert len(seen[0]) == 6
    assert [name for name in seen[0] if seen[0][name] != seen[1][name]] == []


def test_saving_twice_gives_the_same_bytes_with_fonts_inside(tmp_path):
    ax = layer_heatmap(table())
    first = [path.read_bytes() for path in save(ax, tmp_path / "flow")]
    assert first == [path.read_bytes() for path in save(ax, tmp_path / "flow")]
    pdf, svg, _ = first
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert b"<text" not in svg


def test_a_plain_savefig_works_too(tmp_path):
    layer_heatmap(table()).figure.savefig(tmp_path / "flow.pdf")
    assert (tmp_path / "flow.pdf").read_bytes().startswith(b"%PDF")


def test_nothing_global_changes(tmp_path):
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    figure = panels(table(groups=("FA", "AH")))
    save(figure, tmp_path / "a")
    save(layer_curve(table()), tmp_path / "b")
    assert dict(matplotlib.rcParams) == before
    assert plt.get_fignums() == []


@pytest.fixture
def notebook(monkeypatch):
    monkeypatch.setitem(matplotlib.rcParams, "backend", "agg")
    monkeypatch.setitem(sys.modules, "ipykernel", matplotlib)


def test_in_a_notebook_the_figure_is_pyplots(notebook):
    import matplotlib.pyplot as plt

    ax = layer_heatmap(table())
    try:
        assert plt.gcf() is ax.figure
    finally:
        plt.close(ax.figure)


def test_a_notebook_learns_how_a_whole_figure_is_shown(notebook, monkeypatch):
    """Which it does when pyplot makes a figure; none may stay open, or it is shown twice."""
    import matplotlib.pyplot as plt

    made = []
    figure = plt.figure
    monkeypatch.setattr(plt, "figure", lambda *a, **k: made.append(1) or figure(*a, **k))
    before = plt.get_fignums()
    panels(table(), layer_curve, by="prompt")
    assert made
    assert plt.get_fignums() == before
    made.clear()
    monkeypatch.delitem(sys.modules, "ipykernel")
    panels(table(), layer_curve, by="prompt")
    assert not made


def test_figures_load_when_used_and_are_functions_even_after_their_modules():
    code = (
        "import sys, knockgrid.figures as f; print({'pandas', 'matplotlib'} & set(sys.modules))\n"
        "import knockgrid.figures.save, knockgrid.figures.panels\n"
        "print(all(callable(getattr(f, name)) for name in f.__all__))"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.split() == ["set()", "True"]
