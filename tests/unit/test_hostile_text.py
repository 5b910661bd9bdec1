"""Hostile text on its way out: into figures, file names, LaTeX, HTML and spreadsheets."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import cbook, rc_context
from matplotlib.figure import Figure
from matplotlib.text import Text

import knockgrid as kg
from knockgrid import figures
from knockgrid.display.escape import file_name, from_spreadsheet, html, latex, spreadsheet
from knockgrid.figures.words import plain
from knockgrid.reports.draw import draw
from knockgrid.reports.evidence import of_main
from knockgrid.reports.methods import bibtex
from knockgrid.table.table import build

EVIL = "_$\\frac$\x01\n<b>&"
NAMES = ("../etc/passwd", "/etc/passwd", "CON", "", "attn. q", "a" * 300, EVIL, "A", "a", "ä", ".")


def cells(**more):
    """A small table whose every text is hostile, unless told otherwise."""
    rows = [
        {"prompt": prompt, "group": EVIL, "intervention": EVIL, "layer": layer, "js": 0.1 * layer}
        | ({"status": EVIL, "js": np.nan} if layer == 2 else {})
        | {name: value[i] if isinstance(value, tuple) else value for name, value in more.items()}
        for i, prompt in enumerate((EVIL, "b"))
        for layer in range(3)
    ]
    return rows


METADATA = {"unit": EVIL, "mode": EVIL, "n_tokens": 2, "labels": {EVIL: EVIL}}
DESCRIBED = [
    {"name": EVIL, "role": "treatment", "of": None, "source": EVIL, "window": 1},
    {"name": f"{EVIL} | b", "role": "contrast", "of": EVIL, "source": EVIL, "window": 1},
]


def contrasted():
    rows = cells() + [{**row, "intervention": f"{EVIL} | b"} for row in cells()]
    return build(rows, {**METADATA, "interventions": DESCRIBED})


def claimed():
    texts = dict.fromkeys(("claim", "form", "corruption", "window", "value", "confirmed"), EVIL)
    frame = pd.DataFrame([{**texts, "outcome": "held"}])
    frame.attrs = {"knockgrid": {"model": {"name": EVIL}}}
    return frame


def threshold():
    names = ("FA-high", "FA-low", "AH", "UH")
    frame = pd.DataFrame(
        {"threshold": [0.1, 0.3], **dict.fromkeys(names, [1, 1]), "agreement": 1.0}
    )
    frame.attrs = {"knockgrid": {"marks": {EVIL: 0.2}}}
    return frame


def probed():
    rows = [{**row, "position": EVIL, "auc": 0.7, "auc_shuffled": 0.5} for row in cells()]
    table = build([{**row, "position": EVIL} for row in cells()], METADATA)
    apart = pd.DataFrame([[0.1], [0.2]], index=[0, 1], columns=[EVIL])
    return kg.figures.probe_beside_effect(build(rows, METADATA), table, apart)


def reliance():
    return pd.DataFrame(
        {"prompt": ["a", "b"], "relation": [EVIL, "x"], "correct": [True, False], "reliance": 0.5}
    )


def one_prompt():
    rows = [row | {"position": "0"} for row in cells()[:3]]
    side = {"id": EVIL, "tokens": [EVIL], "subject_tokens": [0]}
    return build(rows, {**METADATA, "prompts": [side]})


DRAWN = {
    "claims_card": lambda: kg.figures.claims_card(claimed()),
    "contrast_curves": lambda: kg.figures.contrast_curves(contrasted(), by="group"),
    "dose_heatmap": lambda: kg.dose_heatmap(build(cells(alpha=0.5), METADATA)),
    "head_heatmap": lambda: kg.head_heatmap(build(cells(head=1), METADATA)),
    "with_interval": lambda: kg.figures.with_interval(build(cells(), METADATA)),
    "layer_curve": lambda: kg.layer_curve(build(cells(), METADATA)),
    "layer_heatmap": lambda: kg.layer_heatmap(build(cells(**{EVIL: 0.5}), METADATA), EVIL),
    "module_heatmap": lambda: kg.module_heatmap(build(cells(module=EVIL), METADATA)),
    "scaled_curves": lambda: kg.figures.scaled_curves(contrasted()),
    "panels": lambda: kg.panels(build(cells(group=(EVIL, "b")), METADATA)),
    "position_heatmap": lambda: kg.position_heatmap(build(cells(position=EVIL), METADATA)),
    "probe_beside_effect": probed,
    "reliance_plot": lambda: kg.figures.reliance_plot(reliance()),
    "side_by_side": lambda: kg.side_by_side(
        {EVIL: build(cells(), METADATA), "b$": build(cells(), METADATA)}
    ),
    "threshold_curve": lambda: kg.figures.threshold_curve(threshold()),
    "token_heatmap": lambda: kg.token_heatmap(
        build([row | {"token_text": EVIL} for row in cells()[:3]], METADATA), "js"
    ),
    "position_heatmap of one prompt": lambda: kg.position_heatmap(one_prompt()),
}


def test_every_figure_is_drawn_below():
    assert {name.split(" ")[0] for name in DRAWN} == set(figures.__all__) - {
        "save",
        "Figure",
        "metric_label",
    }


@pytest.mark.parametrize("name", DRAWN)
def test_text_from_data_is_no_formula_in_a_figure(tmp_path, name):
    drawn = DRAWN[name]()
    whole = drawn if isinstance(drawn, Figure) else drawn.figure
    texts = [text.get_text() for text in whole.findobj(Text)]
    assert any("frac" in text for text in texts), "the hostile text is not in the figure"
    for text in texts:
        assert not cbook.is_math_text(text), text
        assert all(c.isprintable() or c == "\n" for c in text), text
        if "frac" in text:
            shown = text.replace(r"\$", "$")
            assert r"_$\frac$\x01⏎<b>&" in shown.replace("\n", "") or name == "claims_card"
    (path,) = kg.save(drawn, tmp_path / "a.svg")
    ElementTree.parse(path)


def test_a_row_that_begins_with_an_underscore_is_in_the_legend():
    ax = kg.layer_curve(build(cells(), METADATA))
    assert [text.get_text() for text in ax.get_legend().get_texts()][0].startswith(" _")


def test_long_names_do_not_make_large_figures():
    table = build([row | {"intervention": "x" * 10**5} for row in cells()], {"unit": "nats"})
    assert kg.layer_curve(table).figure.get_figwidth() < 20
    assert kg.layer_heatmap(table).figure.get_figwidth() < 20


def test_other_settings_of_matplotlib():
    with rc_context({"text.usetex": True}):
        assert plain("\\input{a}$") == r"\textbackslash{}input\{a\}\$"
    with rc_context({"text.parse_math": False}):
        assert plain("$a$") == "$a$"


def test_names_from_data_make_no_path(tmp_path):
    names = ["../../etc/passwd", "CON", "attn. q", "A", "a"]
    rows = [row | {"intervention": name} for name in names for row in cells()]
    table = build(rows, {"unit": "nats"})
    before = set(tmp_path.parent.rglob("*"))
    written = draw(table, tmp_path / "run", kind="token_heatmap", metric="js", by=None)
    assert len(set(written)) == 3 * len(names)
    assert len({path.name.casefold() for path in written}) == 3 * len(names)
    assert {path.parent for path in written} == {tmp_path / "run" / "figures"}
    assert all(path.is_file() and path.suffix in (".svg", ".pdf", ".png") for path in written)
    new = set(tmp_path.parent.rglob("*")) - before
    assert new == {tmp_path / "run", tmp_path / "run" / "figures", *written}


def test_a_metric_from_data_makes_no_path(tmp_path):
    table = build(cells(**{"../../x": 0.5}), {"unit": "nats"})
    for path in draw(table, tmp_path, kind="layer_heatmap", metric="../../x", by=None):
        assert path.parent == tmp_path / "figures"


def test_a_source_from_data_makes_no_path():
    described = [{"name": EVIL, "role": "treatment", "of": None, "source": "../x", "window": 1}]
    rows = [{**row, "group": None} for row in cells()]
    table = build(rows, {"unit": "nats", "interventions": described})
    name, _ = next(of_main(table, Path("nowhere")))
    assert name == f"layer_heatmap_{file_name('../x')}_js"
    assert "/" not in name


@pytest.mark.parametrize("text", NAMES)
def test_file_names(text):
    name = file_name(text)
    assert Path(name).name == name
    assert name not in (".", "..")
    assert len(name.encode()) <= 80
    assert not name.startswith((".", "-", " "))


def test_plain_names_stay_and_others_differ():
    for name in ("subject", "js_to_source", "last", "noise", "w5", "a" * 80):
        assert file_name(name) == name
    for device in ("con", "nul", "aux", "lpt1", "com9"):  # Windows opens these
        assert file_name(device).startswith(f"{device}~")
    assert (
        len({file_name(name) for name in ("Rome", "rome", "ROME", "röme", "rome~", "rome.")}) == 6
    )


def test_versions_in_a_manifest_reach_bibtex_escaped():
    made = bibtex(["knockgrid"], {"knockgrid": "1}\n@misc{x, note = {\\input{a}"})
    assert made.count("@") == bibtex(["knockgrid"], {}).count("@") + 1
    assert "\\input{" not in made
    assert "\n@misc" not in made


def test_text_in_html_and_latex():
    assert html("<img src=x onerror='a()'>") == "&lt;img src=x onerror=&#x27;a()&#x27;&gt;"
    assert html("a\0\ud800b\n") == "a\ufffd\ufffdb\n"
    assert latex("50 % of a_b\n\n\\input{x} $y$") == (
        r"50 \% of a\_b  \textbackslash{}input\{x\} \$y\$"
    )


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@a", "\t=1", "\r=1", "\n=1", " =1", "＝1", "'=1", "\ufeff=1"]
)
def test_an_exported_cell_is_no_formula(text):
    assert spreadsheet(text).startswith("'")
    assert from_spreadsheet(spreadsheet(text)) == text
    for safe in ("Rome", "it's", "'quoted'", "", "a=1", "3.5"):
        assert from_spreadsheet(spreadsheet(safe)) == spreadsheet(safe) == safe
