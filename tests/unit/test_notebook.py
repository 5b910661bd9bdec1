"""What objects show in a notebook; and tutorial, README and a script, which run as they stand."""

import ast
import inspect
import json
import re
import runpy
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import knockgrid as kg

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "tutorial.ipynb"
HOSTILE = '<script>alert(1)</script><img src="http://a.b" onerror=x> & Rome'


class Seen(HTMLParser):
    """Tags, attributes and text of a fragment."""

    def __init__(self, fragment):
        super().__init__()
        self.tags, self.attributes, self.texts, self.open = [], [], [], []
        self.feed(fragment)
        self.close()
        self.text = " ".join(self.texts)
        assert self.open == [], "tags stay open"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


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
        logits, cache = tiny_llama.run_with_cache(tower.text)
        run = kg.passes.from_activation_cache(cache, logits, tower, tiny_llama)
        seen = shown(run)
        assert "resid_post (4 layers)" in seen.text
        assert f" {sum(layer is None for _, layer in run.acts)} others" in seen.text
        assert f"{run.n_prompt} of the prompt, 1 measured" in seen.text
        assert "Run of prompt tower" in seen.text

    def test_long_texts_are_cut(self):
        prompt = kg.Prompt("Rome is in", answers=["la" * 5000])
        assert len(prompt._repr_html_()) < 2000


class TestSummary:
    @pytest.fixture
    def table(self, sweep, prompts):
        rows = [*kg.information_flow(kg.corrupted_run(by=kg.swap())), kg.patch("mlp_out", "last")]
        return sweep(prompts, rows, layers=[0, 1, 3], unit="bits")

    def test_everything_is_counted(self, table):
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
        ranks = [name for name, unit in units.items() if unit == "ranks"]
        assert ranks == ["rank_clean", "rank_answer"]
        assert units["tv"] == "fractions"
        assert {units[name] for name in ("js", "kl", "logp_clean")} == {"bits"}
        assert said["dropped"].startswith("1 prompt, from subject, last (")
        dropped = table.attrs["knockgrid"]["dropped"].values()
        (why,) = {why for some in dropped for why in some.values()}
        assert said["dropped"].endswith(f"({why})")
        assert said["executor"] == table.attrs["knockgrid"]["receipt"]["executor"]
        assert "failed" not in said
        assert "noise floor" not in said

    def test_what_is_missing_is_named(self, table):
        table.loc[table.index[:3], "status"] = "NA: planted"
        table.attrs["knockgrid"] |= {
            "failed": {"lima": "Error", "oslo": "Error"},
            "unfinished": {"finished": 2, "shards": 5},
            "noise_floor": {"js": {"overall": 0.25}},
        }
        said = dict(kg.summary(table).entries)
        assert said["failed"] == "2 prompts: lima, oslo"
        assert said["unfinished"] == "2 of 5 shards are there"
        assert said["without a value"] == "3 (NA: planted)"
        assert said["noise floor"] == "JS 0.25 bits"
        assert said["values"].startswith(f"{len(table) - 3}: ")

    def test_the_counts_are_those_of_the_rows_that_are_there(self, table):
        said = dict(kg.summary(table[(table["intervention"] == "last")]).entries)
        assert (said["prompts"], said["rows"]) == ("2", "1: last")
        assert said["dropped"].startswith("1 prompt, from last (")
        rest = table[table["intervention"] == "attention"]
        assert "dropped" not in dict(kg.summary(rest).entries)
        assert said["sources"] == "corrupted_run(swap())"

    def test_text_and_page_say_the_same(self, table):
        found = kg.summary(table)
        seen = shown(found).texts
        for name, value in found.entries:
            assert {name, value} <= set(seen)
            assert re.search(rf"^{re.escape(name)} +{re.escape(value)}$", str(found), re.M)
        assert repr(found) == str(found)

    def test_another_frame_is_refused(self):
        with pytest.raises(kg.InputError, match="no column 'intervention'"):
            kg.summary(pd.DataFrame({"prompt": ["a"]}))


def cells(kind):
    """The cells of the tutorial, each with its tags and its text."""
    notebook = json.loads(TUTORIAL.read_text("utf-8"))
    of_kind = (cell for cell in notebook["cells"] if cell["cell_type"] == kind)
    return [(cell["metadata"].get("tags", []), "".join(cell["source"])) for cell in of_kind]


class TestTutorial:
    def test_it_is_stored_unrun_and_leads_to_pages_that_are_there(self):
        notebook = json.loads(TUTORIAL.read_text("utf-8"))
        assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
        for cell in notebook["cells"]:
            unrun = {"execution_count": None, "outputs": []} if cell["cell_type"] == "code" else {}
            assert unrun.items() <= cell.items()
        links = re.findall(r"\]\(([^)]+)\)", "".join(text for _, text in cells("markdown")))
        assert len(links) >= 4
        assert all((TUTORIAL.parent / link).is_file() for link in links)
        assert "http" not in TUTORIAL.read_text("utf-8")

    def test_it_installs_itself_where_it_is_opened(self):
        """The first cell is for Colab; the page is built where knockgrid is installed already."""
        (tags, first), *others = cells("code")
        assert first == "%pip install --quiet knockgrid"
        assert {"skip-execution", "remove-cell"} <= set(tags)
        assert not any("skip-execution" in tags or "%" in text for tags, text in others)

    def test_its_code_runs_and_shows_itself(self, lessened, monkeypatch, tmp_path):
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


@pytest.fixture
def lessened(demo_model, monkeypatch):
    """The tables that code as it stands makes, on fewer prompts and layers, without a trial.

    The documentation runs it whole; a trial of the executor costs more than these sweeps.
    """
    swept, tables = kg.sweep, []

    def few(model, prompts, rows, *, layers, **options):
        some = [0, 6, 12, 18, 24] if layers == "all" else [*layers][:: max(2, len(layers) // 4)]
        prompts = prompts if isinstance(prompts, kg.Prompt) else prompts[:2]
        tables.append(swept(model, prompts, rows, layers=some, **options))
        return tables[-1]

    trusted = kg.executors.staircase, {"executor": "staircase", "tried": [], "unseen": []}
    monkeypatch.setattr("knockgrid.engine.setup.choose", lambda *_, **__: trusted)
    monkeypatch.setattr(kg, "sweep", few)
    monkeypatch.setattr(kg, "load", {"demo": demo_model}.get)
    return tables


def blocks(page, language):
    text = (ROOT / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def test_the_study_file_of_the_page_is_the_second_example_of_the_readme(demo_model, tmp_path):
    """Bit for bit, swept by what `knockgrid sweep study.yaml` calls."""
    first, second, *_ = blocks("README.md", "python")
    names = {"kg": kg, "model": demo_model}
    exec(first[first.index("prompts =") : first.index("table =")] + second, names)
    (tmp_path / "study.yaml").write_text(blocks("docs/command_line.md", "yaml")[0])
    spec = kg.runs.read_spec(tmp_path / "study.yaml", {"noise_floor": False})
    kept = kg.runs.run(spec, tmp_path / "run", load=lambda: demo_model, progress=False)
    wanted = [name for name in names["table"] if name != "prompt"]  # the file gives it no id
    pd.testing.assert_frame_equal(kept[wanted], names["table"][wanted], check_exact=True)


def test_the_readme_runs(lessened, monkeypatch, tmp_path):
    """Its blocks in order, as they stand."""
    found = blocks("README.md", "python")
    assert len(found) >= 3
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in found:
        exec(compile(block, "README.md", "exec"), names)
    assert (tmp_path / "flow.pdf").read_bytes().startswith(b"%PDF")
    assert json.loads((tmp_path / "runs/mine/manifest.json").read_text("utf-8"))["finished"]
    flow, own, kept = lessened
    assert flow.groupby("intervention")["js"].max().min() > 0
    assert flow["js"].max() > 0.1
    assert (own["status"] == "ok").all()
    assert names["table"].equals(kept)


def test_the_script_of_the_ray_page_runs_but_for_ray(tiny_llama, monkeypatch, tmp_path):
    """Ray itself is in `test_ray.py`."""
    swept, calls = kg.sweep, []

    def here(model, prompts, rows, *, out, engine):
        """The same sweep by this process."""
        calls.append((model, engine))
        return swept(tiny_llama, prompts, rows, layers=[0, 1], out=out, progress=False)

    monkeypatch.chdir(tmp_path)
    line = {"text": "The capital of Italy is", "subject": "Italy", "answers": ["Rome"]}
    (tmp_path / "prompts.jsonl").write_text(json.dumps(line), "utf-8")
    monkeypatch.setattr(kg, "sweep", here)
    table = runpy.run_path(str(ROOT / "experiments/ray_sweep.py"), run_name="__main__")["table"]
    ((model, engine),) = calls
    assert model.func is kg.load
    inspect.signature(kg.load).bind(*model.args, **model.keywords)
    assert engine == kg.runs.RayEngine(workers=4, cpus=2)
    assert kg.open_run(tmp_path / "runs/big").equals(table)
