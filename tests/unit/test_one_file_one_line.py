"""A new thing of each kind is one file and one line, in a copy of the package that has them all."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import knockgrid as kg

ROOT = Path(__file__).parents[2]
ADDED = {
    "sources/sign_flip.py": '''"""sign_flip: the activation with its sign turned round."""

from dataclasses import dataclass

from knockgrid.sources.source import Source


@dataclass(frozen=True)
class SignFlip(Source):
    """The frozen value behind `sign_flip()`."""

    @property
    def label(self):
        return "sign_flip()"

    def value(self, where):
        return -where.base


def sign_flip():
    """Turn the sign of an activation round."""
    return SignFlip()
''',
    "edits/sink_off.py": '''"""sink_off: the last position may not attend to BOS."""

from dataclasses import dataclass

from knockgrid.edits.intervention import Intervention
from knockgrid.passes.edit import Edit


@dataclass(frozen=True, kw_only=True)
class SinkOff(Intervention):
    """The frozen value behind `sink_off()`."""

    kind = "sink_off"
    sites = ()
    edges = ("last", "bos")
    off: bool = True

    def default_name(self):
        return "sink_off"

    def no_op(self, itself):
        return SinkOff(window=self.window, off=False)

    def edits(self, place):
        heads = None if self.off else ()
        return (Edit("attn_scores", place.layer, place.query_pos("last"), place.pos("bos"), heads),)


def sink_off(*, window=1):
    """Block the attention of the last position to BOS."""
    return SinkOff(window=window)
''',
    "divergences/hellinger.py": '''"""Squared Hellinger distance."""

from knockgrid.divergences.divergence import Divergence


def half_square(pair):
    """Half the squared difference of square roots, 0 to 1."""
    return 0.5 * (pair.p.sqrt() - pair.q.sqrt()).square().sum(-1)


hellinger = Divergence("hellinger", "squared Hellinger distance", half_square, 1.0, False)
''',
    "engine/executors/backwards.py": '''"""backwards: the reference, last cell first."""

from knockgrid.engine.executors.reference import reference


class Backwards:
    """Every cell in one full pass, the last one first."""

    name = "backwards"
    needs_kv = False

    def __call__(self, model, runs, cells):
        yield from reference(model, runs, cells[::-1])


backwards = Backwards()
''',
    "figures/last_bars.py": '''"""last_bars: one bar per intervention at the last layer."""

from knockgrid.figures.canvas import drawing
from knockgrid.figures.figure import Figure
from knockgrid.table.table import grid


@Figure.of()
def last_bars(table, metric="hellinger", *, ax=None, limits=None, title=None):
    """Draw a bar for each intervention. It is that of the last layer."""
    values = grid(table, metric)
    with drawing(3, 2, ax) as ax:
        ax.bar(values.index, values.iloc[:, -1])
    return ax
''',
}
STUDY = """
model: {model}
prompts: {prompts}
layers: [0, 1]
metrics: [js, hellinger]
executor: backwards
noise_floor: false
interventions:
- {{kind: patch, act_name: resid_post, pos: subject, source: sign_flip, name: flip}}
- {{kind: sink_off}}
"""
SWEPT = """
import sys
from pathlib import Path
import knockgrid as kg

assert Path(kg.__file__).is_relative_to(sys.argv[1]), kg.__file__
from knockgrid.cli.app import main
from knockgrid.cli.values import VALUES
from knockgrid.runs.store import open_run

assert "executor=backwards" in VALUES["more"]
assert "sign_flip" in VALUES["source"] and "last_bars" in VALUES["kind"]
def shell(*words):
    sys.argv[1:] = words
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, ended.code
folder, study = sys.argv[2:4]
shell("sweep", study, "--out", folder)
table = open_run(folder)
assert set(table["kind"]) == {"patch resid_post", "sink_off"}, set(table["kind"])
assert set(table["source"].dropna()) == {"sign_flip()"}
assert (table["hellinger"] > 0).all() and (table["hellinger"] <= 1).all()
assert table.attrs["knockgrid"]["receipt"]["executor"] == "backwards"
shell("figure", folder, "--kind", "last_bars")
shell("figure", folder, "--kind", "last_bars", "--by", "group")
shell("verify", folder)
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The package with one new file and one new line per drawer."""
    package = tmp_path_factory.mktemp("tree") / "src" / "knockgrid"
    shutil.copytree(Path(kg.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    for place, text in ADDED.items():
        file = package / place
        file.write_text(text)
        with (file.parent / "__init__.pyi").open("a") as stub:
            stub.write(f"from .{file.stem} import {file.stem} as {file.stem}\n")
    return package.parent


def run_in(copy, code, *words):
    given = {**os.environ, "PYTHONPATH": str(copy)}
    command = [sys.executable, "-c", code, str(copy), *map(str, words)]
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_swept_kept_drawn_and_verified(copy, tmp_path, tiny_folder):
    (tmp_path / "prompts.jsonl").write_text(
        '{"text": "the tower of rome is located in the", "group": "g", '
        '"spans": {"subject": "the tower of rome"}}'
    )
    study = tmp_path / "study.yaml"
    study.write_text(STUDY.format(model=tiny_folder, prompts=tmp_path / "prompts.jsonl"))
    out = tmp_path / "run"
    said = run_in(copy, SWEPT, out, study)
    assert (out / "figures" / "last_bars_hellinger.png").exists(), said


def test_it_is_documented(copy):
    """The reference page lists it, made from the drawers' stubs."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'docs')!r})\n"
        "import conf\n"
        "rooms = conf.names_by_room()\n"
        "print(*[conf.entry(name) for names in rooms.values() for name in names], sep='\\n')"
    )
    said = run_in(copy, code)
    for place in ADDED:
        assert f".{Path(place).stem}\n" in said, place


def test_a_script_of_forty_lines_has_one_of_each_of_its_own(tiny_folder, tmp_path):
    script = Path(__file__).with_name("ones_own.py")
    assert len(script.read_text("utf-8").splitlines()) <= 40
    command = [sys.executable, str(script), str(tiny_folder)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Avg. Jeffreys divergence (nats)" in (tmp_path / "bars.svg").read_text("utf-8")
