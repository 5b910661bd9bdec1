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


def table(rows=None, metadata=None, **more):
    return build(rows or cells(**more), METADATA | (metadata or {}))


def contrasted():
    names = (EVIL, "treatment", None), (f"{EVIL} | b", "contrast", EVIL)
    described = [
        {"name": name, "role": role, "of": of, "source": EVIL, "window": 1}
        for name, role, of in names
    ]
    rows = [{**row, "intervention": name} for name, *_ in names for row in cells()]
    return table(rows, {"interventions": described})


def framed(columns, **told):
    frame = pd.DataFrame(columns)
    frame.attrs = {"knockgrid": told}
    return frame


CLAIM = dict.fromkeys(("claim", "form", "corruption", "window", "value", "confirmed"), EVIL)
LABELS = dict.fromkeys(("FA-high", "FA-low", "AH", "UH"), [1, 1])
RELIED = {"prompt": ["a", "b"], "relation": [EVIL, "x"], "correct": [True, False]}
PROBED = table(position=EVIL, auc=0.7, auc_shuffled=0.5)
APART = pd.DataFrame([[0.1], [0.2]], index=[0, 1], columns=[EVIL])
SIDE = {"id": EVIL, "tokens": [EVIL], "subject_tokens": [0]}
ONE = [row | {"position": "0", "token_text": EVIL} for row in cells()[:3]]
room = kg.figures
DRAWN = {
    "claims_card": lambda **o: room.claims_card(
        framed([CLAIM | {"outcome": "held"}], model={"name": EVIL}), **o
    ),
    "contrast_curves": lambda **o: room.contrast_curves(contrasted(), by="group", **o),
    "dose_heatmap": lambda **o: kg.figures.dose_heatmap(table(alpha=0.5), **o),
    "head_heatmap": lambda **o: kg.figures.head_heatmap(table(head=1), **o),
    "with_interval": lambda **o: room.with_interval(table(), **o),
    "layer_curve": lambda **o: kg.layer_curve(table(), **o),
    "layer_heatmap": lambda **o: kg.layer_heatmap(table(**{EVIL: 0.5}), EVIL, **o),
    "layer_pair_heatmap": lambda **o: kg.layer_pair_heatmap(
        table(source_layer=4, **{EVIL: 0.5}), EVIL, **o
    ),
    "module_heatmap": lambda **o: kg.figures.module_heatmap(table(module=EVIL), **o),
    "scaled_curves": lambda **o: room.scaled_curves(contrasted(), **o),
    "panels": lambda **o: kg.panels(table(group=(EVIL, "b")), **o),
    "position_heatmap": lambda **o: kg.position_heatmap(table(position=EVIL), **o),
    "probe_beside_effect": lambda **o: room.probe_beside_effect(
        PROBED, table(position=EVIL), APART, **o
    ),
    "reliance_plot": lambda **o: room.reliance_plot(framed(RELIED | {"reliance": 0.5}), **o),
    "side_by_side": lambda **o: kg.figures.side_by_side({EVIL: table(), "b$": table()}, **o),
    "span_heatmap": lambda **o: kg.span_heatmap(
        table([row | {"span": EVIL, "measured": EVIL} for row in cells()[:1]]), "js", **o
    ),
    "threshold_curve": lambda **o: room.threshold_curve(
        framed({"threshold": [0.1, 0.3], **LABELS, "agreement": 1.0}, marks={EVIL: 0.2}), **o
    ),
    "token_heatmap": lambda **o: kg.token_heatmap(table(ONE), "js", **o),
    "position_heatmap of one prompt": lambda **o: kg.position_heatmap(
        table(ONE, {"prompts": [SIDE]}), **o
    ),
}


def test_every_figure_is_drawn_below():
    others = {"save", "Figure", "metric_label"}
    assert {name.split(" ")[0] for name in DRAWN} == set(room.__all__) - others


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
    ax = kg.layer_curve(table())
    assert [text.get_text() for text in ax.get_legend().get_texts()][0].startswith(" _")


def test_long_names_do_not_make_large_figures():
    for figure in (kg.layer_curve, kg.layer_heatmap):
        assert figure(table(intervention="x" * 10**5)).figure.get_figwidth() < 20


def test_other_settings_of_matplotlib():
    with rc_context({"text.usetex": True}):
        assert plain("\\input{a}$") == r"\textbackslash{}input\{a\}\$"
    with rc_context({"text.parse_math": False}):
        assert plain("$a$") == "$a$"


def test_names_from_data_make_no_path(tmp_path):
    names = ["../../etc/passwd", "CON", "attn. q", "A", "a"]
    rows = [row | {"intervention": name, "../../x": 0.5} for name in names for row in cells()]
    before = set(tmp_path.parent.rglob("*"))
    out = tmp_path / "run"
    written = draw(table(rows), out, kind="token_heatmap", metric="js")
    assert len(set(written)) == 3 * len(names)
    assert len({path.name.casefold() for path in written}) == 3 * len(names)
    written += draw(table(rows), out, kind="layer_heatmap", metric="../../x")
    assert {path.parent for path in written} == {out / "figures"}
    assert all(path.is_file() and path.suffix in (".svg", ".pdf", ".png") for path in written)
    new = set(tmp_path.parent.rglob("*")) - before
    assert new == {out, out / "figures", *written}


def test_a_source_from_data_makes_no_path():
    described = [{"name": EVIL, "role": "treatment", "of": None, "source": "../x", "window": 1}]
    name, _ = next(of_main(table(group=None, metadata={"interventions": described}), Path("no")))
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
    assert latex("50 % of {a_b}\n\n& $x$ #1 ~^\\input{y}") == (
        r"50 \% of \{a\_b\}  \& \$x\$ \#1 \textasciitilde{}\textasciicircum{}"
        r"\textbackslash{}input\{y\}"
    )


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@a", "\t=1", "\r=1", "\n=1", " =1", "＝1", "'=1", "\ufeff=1"]
)
def test_an_exported_cell_is_no_formula(text):
    assert spreadsheet(text).startswith("'")
    assert from_spreadsheet(spreadsheet(text)) == text
    for safe in ("Rome", "it's", "'quoted'", "", "a=1", "3.5"):
        assert from_spreadsheet(spreadsheet(safe)) == spreadsheet(safe) == safe
