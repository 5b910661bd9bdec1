"""What objects show in a notebook, runs and caches of activations, bars, and the tutorial."""

import ast
import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import jaxtyping
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import knockgrid as kg
from knockgrid.divergences.evaluate import evaluate
from knockgrid.edits.intervention import Cell
from knockgrid.engine.record import record_clean
from knockgrid.engine.settings import Settings
from knockgrid.passes.edit import Edit
from knockgrid.passes.prepared import prepare

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.ipynb"
HOSTILE = '<script>alert(1)</script><img src="http://a.b" onerror=x> & Rome'


class Seen(HTMLParser):
    """Tags, attributes and text of a fragment."""

    def __init__(self, fragment):
        super().__init__()
        self.tags, self.attributes, self.texts, self.open = [], [], [], []
        self.feed(fragment)
        self.close()
        assert self.open == [], "tags stay open"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(self.texts)


def harmless(fragment):
    """A fragment without scripts, requests and classes, in the colours of the page."""
    seen = Seen(fragment)
    assert set(seen.tags) <= {"div", "b", "table", "tr", "td", "span"}
    assert {name for name, _ in seen.attributes} <= {"style", "title"}
    styles = " ".join(value for name, value in seen.attributes if name == "style")
    assert "url" not in styles
    assert not re.search(r"#[0-9a-f]{3}|(?<!border-)color:|background:(?!none)", styles)
    return seen


def shown(thing):
    return harmless(thing._repr_html_())


class TestDisplay:
    def test_a_prompt_marks_its_spans(self):
        prompt = kg.Prompt(
            "Old Rome is in", spans={"subject": "Rome", "both": (0, 8)}, answers=["I"]
        )
        seen = shown(prompt.replace(relation="city", swap=kg.Prompt("Lima is in")))
        titles = [value for name, value in seen.attributes if name == "title"]
        assert titles == ["both", "subject, both"]
        assert {"Old ", "Rome", " is in", "city", "I", "Lima is in"} <= set(seen.texts)

    def test_text_stays_text(self):
        prompt = kg.Prompt(HOSTILE, spans={'"><b onload="x': "Rome"}, answers=[HOSTILE], id="<i>")
        seen = shown(prompt)
        assert HOSTILE[:25] in seen.text
        assert "<i>" in seen.text
        row = kg.patch("resid_post", "last", name=HOSTILE)
        assert HOSTILE in shown(row).text
        table = pd.DataFrame([{"prompt": "a", "intervention": HOSTILE, "layer": 0, "js": 0.1}])
        assert HOSTILE in shown(kg.summary(table)).text

    def test_an_intervention_says_what_it_blocks(self):
        seen = shown(kg.knockout(window=5))
        assert {"window", "5", "knockout"} <= set(seen.texts)
        assert "source" not in seen.texts  # it has none

    def test_a_run_says_what_it_holds(self, tiny_llama, tower):
        run = a_run(tiny_llama, tower)
        seen = shown(run)
        assert "resid_post (4 layers)" in seen.text
        assert f" {sum(layer is None for _, layer in run.acts)} others" in seen.text
        assert f"{run.n_prompt} of the prompt, 1 measured" in seen.text
        assert "Run of prompt tower" in seen.text

    def test_long_texts_are_cut(self):
        prompt = kg.Prompt("Rome is in", answers=["la" * 5000])
        assert len(prompt._repr_html_()) < 2000


class TestSummary:
    def table(self, sweep, prompts):
        rows = [*kg.information_flow(kg.corrupted_run(by=kg.swap())), kg.patch("mlp_out", "last")]
        return sweep(prompts, rows, layers=[0, 1, 3], unit="bits")

    def test_everything_is_counted(self, sweep, prompts):
        table = self.table(sweep, prompts)
        said = dict(kg.summary(table).entries)
        assert said["model"].startswith("tiny-llama (4 layers, Llama")
        assert said["prompts"] == "3"
        assert said["rows"] == "4: subject, attention, last, mlp_out@last"
        assert said["layers"] == "3: 0-1, 3"
        assert said["sources"] == "corrupted_run(swap()), corrupted_run(noise(3.0))"
        valued = int((table["status"] == "ok").sum())
        assert said["values"].startswith(f"{valued}: js, kl, ")
        parts = [part.rsplit(" ", 2) for part in said["values"].split(": ")[1].split("; ")]
        units = {name: unit for names, _, unit in parts for name in names.split(", ")}
        assert [name for name, unit in units.items() if unit == "ranks"] == [
            "rank_clean", "rank_answer",
        ]  # fmt: skip
        assert units["tv"] == "fractions"
        assert {units[name] for name in ("js", "kl", "logp_clean")} == {"bits"}
        assert said["dropped"].startswith("1 prompt, from subject, last (")
        (why,) = {
            why for some in table.attrs["knockgrid"]["dropped"].values() for why in some.values()
        }
        assert said["dropped"].endswith(f"({why})")
        assert said["executor"] == table.attrs["knockgrid"]["receipt"]["executor"]
        assert "failed" not in said
        assert "noise floor" not in said

    def test_what_is_missing_is_named(self, sweep, prompts):
        table = self.table(sweep, prompts)
        metadata = dict(table.attrs["knockgrid"])
        metadata["failed"] = {"lima": "Error", "oslo": "Error"}
        metadata["unfinished"] = {"finished": 2, "shards": 5}
        metadata["noise_floor"] = {"js": {"overall": 0.25}}
        table = table.copy()
        table.loc[table.index[:3], "status"] = "NA: planted"
        table.attrs = {"knockgrid": metadata}
        said = dict(kg.summary(table).entries)
        assert said["failed"] == "2 prompts: lima, oslo"
        assert said["unfinished"] == "2 of 5 shards are there"
        assert said["without a value"] == "3 (NA: planted)"
        assert said["noise floor"] == "JS 0.25 bits"
        assert said["values"].startswith(f"{len(table) - 3}: ")

    def test_the_counts_are_those_of_the_rows_that_are_there(self, sweep, prompts):
        table = self.table(sweep, prompts)
        said = dict(kg.summary(table[(table["intervention"] == "last")]).entries)
        assert (said["prompts"], said["rows"]) == ("2", "1: last")
        assert said["dropped"].startswith("1 prompt, from last (")
        rest = table[table["intervention"] == "attention"]
        assert "dropped" not in dict(kg.summary(rest).entries)
        assert said["sources"] == "corrupted_run(swap())"

    def test_text_and_page_say_the_same(self, sweep, prompts):
        found = kg.summary(self.table(sweep, prompts))
        seen = shown(found).texts
        for name, value in found.entries:
            assert {name, value} <= set(seen)
            assert re.search(rf"^{re.escape(name)} +{re.escape(value)}$", str(found), re.M)
        assert repr(found) == str(found)

    def test_another_frame_is_refused(self):
        with pytest.raises(kg.InputError, match="no column 'intervention'"):
            kg.summary(pd.DataFrame({"prompt": ["a"]}))


def a_run(model, prompt, bos=True, row=0, texts=None):
    logits, cache = model.run_with_cache(texts or prompt.text, prepend_bos=bos)
    return kg.from_activation_cache(cache, logits, prompt, model, row=row)


ACTS = ("resid_pre", "resid_post", "attn_out", "mlp_out", "q", "k", "v", "z", "pattern")


class TestActivationCache:
    @pytest.fixture(params=["tiny_llama", "tiny_gpt2"])
    def model(self, request):
        return request.getfixturevalue(request.param)

    @pytest.mark.parametrize("bos", [True, False])
    def test_values_are_those_of_the_cache(self, model, tower, bos):
        logits, cache = model.run_with_cache(tower.text, prepend_bos=bos)
        run = a_run(model, tower, bos)
        assert run.tokens.bos == int(bos)
        assert run.n_prompt == logits.shape[1] == len(run.ids)
        assert run.ids.tolist() == model.to_tokens(tower.text, prepend_bos=bos)[0].tolist()
        assert torch.equal(run.logits, logits[0, -1:])
        for layer in range(model.cfg.n_layers):
            for name in ACTS:
                assert torch.equal(run.acts[name, layer], cache[name, layer][0]), (name, layer)

    @pytest.mark.parametrize("bos", [True, False])
    def test_there_and_back_is_the_same(self, model, tower, bos):
        _, cache = model.run_with_cache(tower.text, prepend_bos=bos)
        run = a_run(model, tower, bos)
        made = kg.to_activation_cache(run, model)
        assert made.has_batch_dim
        assert made.model is model
        for name, value in made.items():
            assert torch.equal(value, cache[name]), name
        assert set(cache.keys()) == set(made.keys())
        again = kg.from_activation_cache(made, run.logits[None], tower, model)
        assert set(again.acts) == set(run.acts)
        assert all(torch.equal(again.acts[site], act) for site, act in run.acts.items())
        assert (again.tokens, again.n_valid, again.named) == (run.tokens, run.n_valid, run.named)
        assert torch.equal(again.ids, run.ids)
        assert torch.equal(again.logits, run.logits)

    def test_what_a_sweep_recorded_is_the_same(self, model, tower, telling):
        """A Run of knockgrid's own passes, to a cache and back, against `run_with_cache`."""
        rows = [kg.patch(name, "last") for name in ("resid_post", "mlp_out", "z", "q")]
        settings = Settings(rows, (0, 1), 3, 1, "noise", False, True, 0, keep_kv=True)
        (run,) = record_clean(model, prepare(model, [tower], True, 3), settings)
        made = kg.to_activation_cache(run, model)
        _, cache = model.run_with_cache(run.ids[None])
        for name, value in made.items():
            assert torch.allclose(value.double(), cache[name].double(), atol=1e-10), name
        assert {name for name, _ in run.acts} <= {"resid_pre", "resid_post", "mlp_out", "z", "q"}
        again = kg.from_activation_cache(made, run.logits[None], tower, model)
        assert set(again.acts) == set(run.acts)
        assert (again.generated, again.named) == (run.generated, run.named)
        assert again.n_tokens == 3
        assert torch.equal(again.logits, run.logits)

    def test_rows_of_a_batch(self, tiny_llama, prompts):
        pair = [prompts[0], prompts[2]]
        logits, cache = tiny_llama.run_with_cache([one.text for one in pair])
        for row, prompt in enumerate(pair):
            run = kg.from_activation_cache(cache, logits, prompt, tiny_llama, row=row)
            assert torch.equal(run.acts["resid_post", 3], cache["resid_post", 3][row])
            assert torch.equal(run.logits, logits[row, -1:])
            with pytest.raises(kg.InputError, match="other tokens than those of prompt"):
                kg.from_activation_cache(cache, logits, prompt, tiny_llama, row=1 - row)
        with pytest.raises(kg.InputError, match="row is 2, and logits has 2 rows"):
            kg.from_activation_cache(cache, logits, pair[0], tiny_llama, row=2)

    def test_a_cache_without_a_batch(self, tiny_llama, tower):
        logits, cache = tiny_llama.run_with_cache(tower.text)
        batched = a_run(tiny_llama, tower)
        cache.remove_batch_dim()
        run = kg.from_activation_cache(cache, logits[0], tower, tiny_llama)
        assert all(torch.equal(batched.acts[site], act) for site, act in run.acts.items())

    @pytest.mark.parametrize("pad", ["eos", "own"])
    def test_padding_is_no_continuation(self, tiny_llama, prompts, pad, monkeypatch):
        tokenizer = copy.deepcopy(tiny_llama.tokenizer)
        own = next(i for i in range(len(tokenizer)) if i not in tokenizer.all_special_ids)
        of = {"eos": tokenizer.eos_token_id, "own": own}
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(of[pad])
        # not the property: assigning it would change the model's configuration for good
        monkeypatch.setattr(tiny_llama, "_tokenizer", tokenizer)
        prompt = prompts[0]
        ids = tiny_llama.to_tokens(prompt.text)[0]
        for count in (1, 2, 5):
            padded = torch.cat([ids, torch.full((count,), of[pad])])
            logits, cache = tiny_llama.run_with_cache(padded[None])
            if (count, pad) == (1, "eos"):  # the end of a text
                run = kg.from_activation_cache(cache, logits, prompt, tiny_llama)
                assert (run.n_tokens, run.n_valid) == (2, 1)
                continue
            with pytest.raises(kg.InputError, match=f"there are {count} tokens of padding"):
                kg.from_activation_cache(cache, logits, prompt, tiny_llama)

    def test_what_is_no_cache_is_refused(self, tiny_llama, tower, monkeypatch):
        """Outside of tests nothing checks types but the functions themselves."""
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)

        logits, cache = tiny_llama.run_with_cache(tower.text)
        for given, says in (
            ((dict(cache.items()), logits, tower), "cache is a dict; give one of ActivationCache"),
            ((cache, logits, tower.text), "prompt is a str; give one of Prompt"),
            ((logits, cache, tower), "cache is a Tensor"),
            ((cache, logits[0], tower), r"logits have shape \(10, 400\); for this cache give"),
        ):
            with pytest.raises(kg.InputError, match=says):
                kg.from_activation_cache(*given, tiny_llama)
        with pytest.raises(kg.InputError, match="run is a ActivationCache; give one of Run"):
            kg.to_activation_cache(cache, tiny_llama)

    def test_no_name_is_lost_in_compatibility_mode(self, tiny_tokenizer, plain, tower):
        from transformer_lens.model_bridge import TransformerBridge

        model = TransformerBridge.boot_transformers(
            "tiny-llama",
            hf_model=copy.deepcopy(plain),
            tokenizer=tiny_tokenizer,
            dtype=torch.float64,
            device="cpu",
        )
        model.enable_compatibility_mode()
        logits, cache = model.run_with_cache(tower.text)
        made = kg.to_activation_cache(kg.from_activation_cache(cache, logits, tower, model), model)
        assert set(cache.keys()) <= set(made.keys())
        for name in cache:
            assert torch.equal(made[name], cache[name]), name

    def test_a_cache_of_some_activations(self, tiny_llama, tower, prompts):
        logits, cache = tiny_llama.run_with_cache(
            tower.text, names_filter=lambda name: name.endswith("hook_resid_post")
        )
        run = kg.from_activation_cache(cache, logits, tower, tiny_llama)
        assert set(run.acts) == {("resid_post", layer) for layer in range(4)}
        with pytest.raises(
            kg.InputError, match=r"of 10 positions, and prompt 'italy' has \d or \d"
        ):
            kg.from_activation_cache(cache, logits, prompts[2], tiny_llama)
        ids = tiny_llama.to_tokens(f"{tower.text} Paris")[0]
        with pytest.raises(kg.InputError, match="logits of 10 positions for 11 tokens"):
            kg.from_activation_cache(cache, logits, tower, tiny_llama, ids=ids)

    def test_executors_take_it(self, tiny_llama, tower):
        """A cell on a Run from a cache is what the sweep measures there."""
        run, row = a_run(tiny_llama, tower), kg.patch("resid_post", "last", kg.zero())
        table = kg.sweep(tiny_llama, [tower], row, layers=[1], progress=False)
        assert table["js"][0] > 0
        act = run.acts["resid_post", 1]
        edit = Edit("resid_post", 1, (run.n_prompt - 1,), value=torch.zeros(1, act.shape[-1]))
        cell = Cell(0, 0, (0,), row, 1, (1,), ((edit,),))
        (outcome,) = kg.reference(tiny_llama, [run], [cell])
        found = float(evaluate([kg.js], outcome.null, outcome.logits)["js"][0])
        assert found == pytest.approx(table["js"][0], abs=1e-12)


def cells(kind):
    """The cells of the tutorial, each with its tags and its text."""
    notebook = json.loads(TUTORIAL.read_text("utf-8"))
    of_kind = (cell for cell in notebook["cells"] if cell["cell_type"] == kind)
    return [(cell["metadata"].get("tags", []), "".join(cell["source"])) for cell in of_kind]


class TestTutorial:
    def test_it_is_a_notebook(self):
        """By the rules of nbformat 4.5, and by nbformat itself where it is installed."""
        notebook = json.loads(TUTORIAL.read_text("utf-8"))
        assert set(notebook) == {"cells", "metadata", "nbformat", "nbformat_minor"}
        assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
        assert notebook["metadata"]["kernelspec"]["name"] == "python3"
        ids = [cell["id"] for cell in notebook["cells"]]
        assert len(set(ids)) == len(ids)
        for cell in notebook["cells"]:
            keys = {"cell_type", "id", "metadata", "source"}
            if cell["cell_type"] == "code":
                keys |= {"execution_count", "outputs"}
                assert (cell["execution_count"], cell["outputs"]) == (None, [])
            assert set(cell) == keys
            assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", cell["id"])
            assert all(line.endswith("\n") for line in cell["source"][:-1])
            assert cell["source"][-1].strip()
        try:
            import nbformat
        except ImportError:
            return
        nbformat.validate(notebook, relax_add_props=False)

    def test_it_installs_itself_where_it_is_opened(self):
        """The first cell is for Colab; the page is built where knockgrid is installed already."""
        (tags, first), *others = cells("code")
        assert first == "%pip install --quiet knockgrid"
        assert {"skip-execution", "remove-cell"} <= set(tags)
        assert not any("skip-execution" in tags or "%" in text for tags, text in others)

    def test_it_links_to_pages_that_are_there_and_to_nothing_else(self):
        text = "".join(text for _, text in cells("markdown"))
        links = re.findall(r"\]\(([^)]+)\)", text)
        assert len(links) >= 4
        assert all((TUTORIAL.parent / link).is_file() for link in links)
        assert "http" not in TUTORIAL.read_text("utf-8")

    def test_its_code_runs_and_shows_itself(self, demo_model, monkeypatch, tmp_path):
        swept = kg.sweep

        def few(model, prompts, rows, *, layers, **options):
            """The same calls on fewer prompts and layers; the documentation makes them whole."""
            layers = [0, 6, 12, 18, 24] if layers == "all" else list(layers)[::8]
            prompts = prompts if isinstance(prompts, kg.Prompt) else prompts[:2]
            return swept(model, prompts, rows, layers=layers, **options)

        def trusted(*_, **__):
            """No trial of the executor, which costs more than these sweeps."""
            return kg.staircase, {"executor": "staircase", "tried": [], "unseen": []}

        monkeypatch.setattr("knockgrid.engine.setup.choose", trusted)
        monkeypatch.setattr(kg, "sweep", few)
        monkeypatch.setattr(kg, "load", lambda name: demo_model)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        names, shown = {}, []
        for _, text in cells("code")[1:]:
            tree = ast.parse(text)
            last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, "tutorial", "exec"), names)
            if last is not None:
                shown.append(eval(compile(ast.Expression(last.value), "tutorial", "eval"), names))
        prompt, summary, head, grid, known, first, contrasts, of_run, same = shown
        assert isinstance(contrasts, Figure)
        assert isinstance(names["ax"], Axes)
        for one in (prompt, summary, first, of_run):
            harmless(one._repr_html_())
        assert same is True
        assert len(known) >= 8
        assert dict(of_run.entries)["rows"].startswith("3: subject noise, subject swap, attention")
        assert grid.loc["subject", 0] > 0.2 > grid.loc["last", 0]
        assert grid.loc["last", 24] > 0.2 > grid.loc["subject", 24]
        assert list(head["intervention"].unique()) == ["subject"]
