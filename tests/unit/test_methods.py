"""The methods paragraph: it says what every setting was, and cites what was used, and only that."""

import json
import re

import pytest

import knockgrid as kg
from knockgrid._escape import latex
from knockgrid._sweep import METRICS
from knockgrid.edge.carry_out import SAME
from knockgrid.edge.config import SweepConfig
from knockgrid.edge.engine import InProcess
from knockgrid.edge.manifest import read_manifest
from knockgrid.edge.methods import methods
from knockgrid.edge.plan import interventions_of
from knockgrid.edge.references import entries
from knockgrid.edge.resumable import Given, begun, carried_on
from knockgrid.edge.run_folder import RunFolder

BASE = {"model": "tiny", "source": ("noise", "swap"), "seed": 0}


@pytest.fixture(scope="module")
def written(tiny_llama, tmp_path_factory):
    """A run folder of the tiny model under some settings, and what its methods say."""
    paris = kg.Prompt("The capital of France is", spans={"subject": "France"}, id="paris")
    rome = kg.Prompt("The capital of Italy is", spans={"subject": "Italy"}, id="rome")
    prompts = [
        rome.replace(swap=paris, relation="capital", answers=["Rome"]),
        paris.replace(swap=rome, relation="capital", answers=["Paris"]),
    ]

    def write(**changes):
        config = SweepConfig(**{**BASE, **changes})
        options = {name: getattr(config, name) for name in SAME}

        rows = interventions_of(config)
        given = Given(tiny_llama, prompts, rows, {"metrics": METRICS, **options})
        folder = RunFolder(tmp_path_factory.mktemp("methods"))
        with InProcess(given) as engine:
            begun(folder, json.loads(config.model_dump_json()), config.digest(), engine)
            carried_on(folder, (1, 1), False, engine)
        return folder.path, methods(folder.path)

    return write


@pytest.fixture(scope="module")
def base(written):
    return written()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"revision": "abc1"}, "revision abc1"),
        ({"device_map": "balanced"}, "device map balanced"),
        ({"prompts": "mine.jsonl"}, "mine.jsonl"),
        ({"form": "chat"}, "the prompts stood as the beginning of a chat model's own turn"),
        ({"form": "Well: {}"}, "the prompts stood behind 'Well: \\{\\}'"),
        ({"rows": ("subject",), "source": ("swap",)}, "row 'subject' (Subj.)"),
        ({"source": ("zero", "swap")}, "zeros"),
        ({"source": ("noise:1", "swap")}, "noise(1.0)"),
        ({"noise": 5.0}, "noise(5.0)"),
        ({"window": (3,)}, "a window of 3 layers"),
        ({"window": ("from",)}, "that layer and all later ones"),
        ({"act_name": "mlp_out"}, "mlp\\_out"),
        ({"layers": (0, 2)}, "at layers 0, 2"),
        ({"n_tokens": 3}, "first 3 tokens after the prompt (edits touch prompt positions only"),
        ({"n_tokens": 2, "mode": "persistent"}, "knockouts also bind every generated query"),
        ({"unit": "bits"}, "in bits"),
        ({"samples": 2}, "with 2 draws"),
        (
            {"direction": "denoise", "rows": ("subject",)},
            "Restored are the values of the clean run",
        ),
        ({"executor": "reference"}, "executor setting reference"),
        ({"prepend_bos": False}, "BOS was not prepended"),
        ({"seed": 3}, "seed 3"),
    ],
)
def test_every_setting_is_said(base, written, change, says):
    assert says not in base[1]
    assert says in written(**change)[1]


def test_what_the_run_found_out_is_said(base):
    folder, text = base
    manifest = read_manifest(folder)
    for said in (
        "holds 2 prompts over 1 relation (capital)",
        manifest["model"]["weights_digest"][:12],
        f"{manifest['sigma']['subject']:.4g}",
        manifest["config_digest"],
        manifest["versions"]["torch"],
        manifest["receipt"]["executor"],
        "float64",
    ):
        assert said in text


def test_selection_groups_and_dropped_prompts_are_counted(base):
    folder, _ = base
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    counts = {"considered": 9, "known": 5, "known_kept": 2, "unknown_kept": 3}
    changed = {**manifest, "selection": counts, "dropped": {"last swap": {"rome": "no partner"}}}
    try:
        path.write_text(json.dumps(changed))
        text = methods(folder)
    finally:
        path.write_text(json.dumps(manifest))
    assert "of 9 prompts that were tried" in text
    assert "an answer for 5, of which 2 were kept, beside 3 of the others" in text
    assert "1 prompt could not take part in row 'last swap' (Last.)" in text


def test_what_is_cited_has_an_entry_and_nothing_else_has(written):
    for change in ({}, {"rows": ("attention",)}, {"source": ("swap",)}):
        _, text = written(**change)
        paragraph, works = text.split("\n\n", 1)
        cited = {
            key for keys in re.findall(r"\\citep\{(.*?)\}", paragraph) for key in keys.split(",")
        }
        assert cited == set(re.findall(r"^@\w+\{(\w+),", works, re.MULTILINE))
    assert {"zhang2023", "geva2023", "lin1991"} <= cited
    assert "meng2022" not in cited


def test_every_entry_is_whole():
    for key, entry in entries().items():
        assert entry.count("{") == entry.count("}"), key
        assert "title = {" in entry
        assert "author = {" in entry


def test_nothing_from_names_reaches_latex_unlatex():
    assert latex(r"50% of {a_b} & $x$ #1 ~^\input{x}") == (
        r"50\% of \{a\_b\} \& \$x\$ \#1 \textasciitilde{}\textasciicircum{}"
        r"\textbackslash{}input\{x\}"
    )
