"""The methods paragraph: it says what every setting was, and cites what was used, and only that."""

import json
import re
import sys
from pathlib import Path

import pytest

import knockgrid as kg
from knockgrid.reports.methods import entries, methods
from knockgrid.runs.manifest import read_manifest
from knockgrid.runs.running import run
from knockgrid.spec import Spec, rows_as_data

sys.path.insert(0, str(Path(__file__).parents[1]))  # importlib mode: `made_runs` is ours

from made_runs import TREATMENTS, Made, made_run

NAMED = ("rows", "sources", "windows", "act_name")
TOLD = ("revision", "device_map", "prompts", "form")  # which say nothing to a run of objects


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
        told = {name: changes.pop(name) for name in TOLD if name in changes}
        named = {name: changes.pop(name) for name in NAMED if name in changes}
        rows = rows_as_data(**{"sources": ("noise", "swap"), **named})
        folder = tmp_path_factory.mktemp("methods")
        given = {"model": tiny_llama, "prompts": prompts, "interventions": rows}
        run(Spec(**given, noise_floor=False, **changes), folder, progress=False)
        manifest = read_manifest(folder)
        manifest["config"] |= {"model": "tiny", **told}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder, methods(folder)

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
        ({"form": "chat"}, "the prompts began a chat model's own turn"),
        ({"form": "Well: {}"}, "the prompts were preceded by 'Well: \\{\\}'"),
        ({"rows": ("subject",), "sources": ("swap",)}, "row 'subject' (Subj.)"),
        ({"sources": ("zero", "swap")}, "zeros"),
        ({"sources": ("noise:1", "swap")}, "noise(1.0)"),
        ({"sources": ("noise:5", "swap")}, "noise(5.0)"),
        ({"windows": (3,)}, "a window of 3 layers"),
        ({"windows": ("from",)}, "that layer and all later ones"),
        ({"act_name": "mlp_out"}, "mlp\\_out"),
        ({"layers": (0, 2)}, "at layers 0, 2"),
        ({"n_tokens": 3}, "first 3 tokens after the prompt (edits touch prompt positions only"),
        ({"n_tokens": 2, "mode": "persistent"}, "knockouts also bind every generated query"),
        ({"unit": "bits"}, "divergences in bits"),
        ({"samples": 2}, "with 2 draws"),
        (
            {"direction": "denoising", "rows": ("subject",)},
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
    for change in ({}, {"rows": ("attention",)}, {"sources": ("swap",)}):
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


class Varied(Made):
    """Prompts of which the last ones have neither relation nor answers."""

    def __init__(self, bare=0, **options):
        super().__init__(**options)
        self.bare = bare

    @property
    def prompts(self):
        found = super().prompts
        for i in range(self.n - self.bare, self.n):
            found[i] = found[i].replace(relation=None, answers=())
        return found


def names_of(said):
    return [name.replace("\\_", "_") for name in said.split("; ")[0].split(", ")]


class Checked:
    """The sentences of a paragraph, each held against the table and the manifest."""

    def __init__(self, folder, table, manifest):
        self.table, self.manifest = table, manifest
        self.meta = table.attrs["knockgrid"]
        self.ids = [side["id"] for side in self.meta["prompts"]]
        self.relations = {side["id"]: side["relation"] for side in self.meta["prompts"]}

    def model(self, name, layers, dtype, digest):
        told = self.meta["model"]
        assert (told["name"], told["n_layers"], told["dtype"]) == (name, int(layers), dtype)
        assert told["weights_digest"].startswith(digest)

    def software(self, *found):
        names = ("knockgrid", "transformer-lens", "transformers", "torch")
        assert found == tuple(self.meta["versions"][name] for name in names)

    def prompts(self, n, n_relations, named, without, groups, no):
        assert int(n) == len(self.ids)
        assert int(n_relations) == len({r for r in self.relations.values() if r})
        assert set(named.split(", ")) == {r for r in self.relations.values() if r}
        assert int(without or 0) == sum(r is None for r in self.relations.values())
        counted = self.table.drop_duplicates("prompt")["group"].value_counts().to_dict()
        pairs = [part.split(" ") for part in groups.split(", ")]
        assert {name: int(count) for count, name in pairs} == counted
        assert (no == "") == self.meta["prepend_bos"]

    def failed(self, n):
        assert int(n) == self.manifest["plan"]["prompts"] - self.table["prompt"].nunique() > 0

    def dropped(self, n, named):
        for row in re.findall(r"row '(.*?)'", named):
            assert int(n) == len(self.meta["dropped"][row])

    def missing(self, n, total, why):
        gone = self.table[self.table["js"].isna()]
        assert (int(n), int(total)) == (len(gone), len(self.table))
        assert sum(int(part.split(": ")[0]) for part in why.split("; ")) == len(gone)

    def edited(self, place, named):
        described = {one["name"]: one for one in self.meta["interventions"]}
        for row in re.findall(r"row '(.*?)'", named):
            assert row in set(self.table["intervention"])
            windows = {"a window of 5 layers": 5, "one layer": 1}
            assert windows[place] == described[row]["window"]

    def noisy(self, level, sigma, draws, seed, *rest):
        assert level == "noise(3.0)"
        assert float(sigma) == pytest.approx(self.meta["sigma"]["subject"], rel=1e-3)
        assert (int(draws), int(seed)) == (self.meta["samples"], self.meta["seed"])
        self.edited("one layer", rest[0])

    def measured(self, tokens, where, measures):
        assert (1 if tokens is None else int(tokens)) == self.table["token"].nunique()
        layers = [int(one) for one in where.split(", ")]
        assert sorted(layers) == sorted(self.table["layer"].unique())
        unit = self.meta["unit"]
        of = {
            "js kl kl_reverse": f"divergences in {unit}",
            "tv": "the total variation, a fraction",
            "logp_clean logp_answer": f"log-probabilities in the edited run, in {unit}",
            "rank_clean rank_answer": "ranks in the edited run, 0 for the likeliest token",
        }
        kinds = {name: kind for names, kind in of.items() for name in names.split()}
        said = {
            name: kind
            for kind, names in re.findall(r"(?:^|; )([^();]*?) \(([^()]*)\)", measures)
            for name in names_of(names)
        }
        assert said == {name: kinds[name] for name in self.meta["metrics"]}
        assert set(said) <= set(self.table.columns)

    def answered(self, named, n, total):
        has = self.table.groupby("prompt")["rank_answer"].apply(lambda one: one.notna().any())
        assert (int(n), int(total)) == (has.sum(), len(self.ids))
        assert set(re.findall(r"\w+_answer", named.replace("\\_", "_"))) == {
            name for name in self.table if "answer" in name
        }

    def bands(self, said, fewest):
        clusters = {one or "none" for one in self.relations.values()}
        assert int(said.split(" ")[0]) == len(clusters - {"none"})
        assert ("without one" in said) == ("none" in clusters)
        rows = self.table[self.table["js"].notna()].groupby("intervention")["prompt"]
        least = min(len({self.relations[p] for p in some}) for _, some in rows)
        assert least == int(fewest or len(clusters))

    def nothing(self, n):
        assert int(n) == len({one for one in self.relations.values() if one})
        assert len(set(self.relations.values())) < 6

    def computed(self, executor, least):
        receipt = self.manifest["receipt"]
        assert executor == receipt["executor"]
        assert float(least) == min(receipt["maximal_effects"].values())

    def floor(self):
        assert "noise_floor" in self.manifest

    def identified(self, digest, executor):
        assert digest == self.manifest["config_digest"]
        assert executor == self.manifest["config"]["executor"]


CITED = r"(?: \\citep\{[\w,]+\})?\. ?(?=[A-Z\d]|$)"
SENTENCES = {
    "model": r"We edited (\S+) \(\w+, (\d+) layers, (\w+), \w+ attention, weights digest (\w+)\) "
    r"on x CPU",
    "software": r"The software was knockgrid (\S+) on TransformerLens (\S+), Transformers (\S+) "
    r"and PyTorch (\S+)",
    "prompts": r"The prompt set \(facts\) holds (\d+) prompts? over (\d+) relations? \(([^;)]*)"
    r"(?:; (\d+) prompts? without one)?\), of them (.*?); BOS was (|not )prepended",
    "failed": r"(\d+) further prompts? failed with an error and enter nothing",
    "dropped": r"(\d+) prompts? could not take part in (.*?)",
    "missing": r"(\d+) of (\d+) rows of the table have no value \((.*?)\)",
    "edited": r"Attention was blocked in all heads at (a window of 5 layers) centred on the layer "
    r"and clipped at the ends, by setting the scores to the smallest number of their dtype before "
    r"the softmax, which shares the weight among the rest: (.*?)",
    "noisy": r"The activation resid\\_post was replaced at one layer by the activation of a run "
    r"with Gaussian noise on the embeddings, (\S+), in standard deviations of the embedding "
    r"activation \((\S+) over the subject tokens\), with (\d+) draws? \(seed (\d+)\): (.*?)",
    "measured": r"Effects were measured on the distributions of the (?:next token after the prompt|"
    r"first (\d+) tokens after the prompt \([^)]*\)) with and without the edit, at layers "
    r"([\d, ]+): (.*?\))",
    "answered": r"Measures of the answer \((.*?)\) take the first token of the answers, which "
    r"(\d+) of (\d+) prompts? ha\w+",
    "bands": r"Bands are 95 \\% bootstrap-t intervals over (\d+ relations?(?: \+ the prompts "
    r"without one)?)(?: \(in rows that lack prompts, down to (\d+) .*?\))?, simultaneous over "
    r"layers; differences were tested by flipping the signs of whole clusters and corrected over "
    r"layers by the largest t",
    "nothing": r"With (\d+) relations?(?: \+ the prompts without one)? there is no interval and no "
    r"test",
    "computed": r"Cells were computed with the (\w+) executor and maximal edits moved JS by "
    r"(\S+) or more",
    "floor": r"The noise floor, the 99th percentile of JS under edits of one unit in the last "
    r"place at the same sites, is marked in the figures",
    "identified": r"The run is identified by config digest (\w+) \(executor setting (\w+)\)",
}
ALL = ("js", "kl", "kl_reverse", "tv", "logp_clean", "rank_clean")


@pytest.mark.parametrize(
    ("options", "also"),
    [
        ({}, ()),
        ({"n": 24, "relations": 8, "unit": "bits"}, ("bands",)),
        ({"n": 24, "relations": 7, "bare": 2, "tokens": 3}, ("bands",)),
        ({"n": 24, "relations": 3, "bare": 3, "metrics": ("kl", "rank_clean")}, ("nothing",)),
        (
            {"n": 24, "relations": 8, "sigma": 0.25, "seed": 4, "layers": [3, 0], "bare": 1}
            | {"failed": {"p002": "out of luck"}, "per_shard": 6}
            | {"dropped": {"last": {f"p{i:03d}": "no partner" for i in range(0, 24, 8)}}},
            ("failed", "dropped", "missing", "bands"),
        ),
        (
            {"n": 24, "relations": 8, "bare": 5, "metrics": (*ALL, "logp_answer", "rank_answer")},
            ("answered", "bands"),
        ),
    ],
)
def test_every_sentence_is_true_of_the_table(tmp_path, options, also):
    """Each is parsed, and its numbers are counted again in the table; no sentence is left over."""
    folder = tmp_path / "run"
    made_run(folder, Varied(rows=TREATMENTS, **options))
    rest = methods(folder).split("\n\n")[0]
    checked = Checked(folder, kg.open_run(folder), read_manifest(folder))
    seen = []
    while rest:
        found = {name: re.match(said + CITED, rest) for name, said in SENTENCES.items()}
        name, match = next(((n, m) for n, m in found.items() if m), (None, None))
        assert match, rest
        getattr(checked, name)(*match.groups())
        seen.append(name)
        rest = rest[match.end() :]
    always = {"model", "software", "prompts", "edited", "noisy", "measured", "identified"}
    assert {*also, *always} <= set(seen)
