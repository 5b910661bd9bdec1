"""What is computed once is not computed twice, and holds until something changes."""

import copy
import json
import sys
from collections import Counter
from importlib import import_module

import pytest
import torch
from tqdm.auto import tqdm

import knockgrid as kg
from knockgrid.cli.check_model import checked
from knockgrid.display.progress import without_bars
from knockgrid.engine import preflight as _preflight
from knockgrid.engine import receipts as _receipts
from knockgrid.engine import record as _record
from knockgrid.engine.executors import rows as _rows
from knockgrid.host import digests
from knockgrid.passes import run as _run


@pytest.fixture
def passes(monkeypatch):
    """Counts the passes of knockgrid's that read all weights."""
    found, right = Counter(), _run.run_hooked

    def counting(model, ids, hooks, past=None, stop_at_layer=None):
        found["passes"] += stop_at_layer is None
        return right(model, ids, hooks, past, stop_at_layer)

    for name, module in list(sys.modules.items()):
        if name.startswith("knockgrid.") and getattr(module, "run_hooked", None) is right:
            monkeypatch.setattr(module, "run_hooked", counting)
    return found


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A cache of receipts of this test's own."""
    monkeypatch.setenv("KNOCKGRID_RECEIPTS", str(tmp_path / "receipts"))
    return tmp_path / "receipts"


@pytest.fixture
def forget():
    """Preflight as in a new process."""

    def go(model):
        _preflight._RECEIPTS.pop(model, None)

    return go


def swept(model, prompts, rows=None, **options):
    rows = kg.information_flow(window=1) if rows is None else rows
    return kg.sweep(model, prompts, rows, progress=False, **options)


class TestPasses:
    def test_one_prompt_takes_two_or_three(self, boot, prompts, passes):
        model, table = boot(), None
        for most in (7, 3):  # with preflight, and without
            passes.clear()
            table = swept(model, prompts[1])
            assert 2 <= passes["passes"] <= most
        assert (table.js > 0).any()

    def test_prompts_of_equal_length_are_not_tried_each(self, boot, prompts, passes):
        model = boot()
        _, tower, italy = prompts
        swept(model, [italy, italy.replace(text="The capital of France is", id="other")])
        passes.clear()
        swept(model, italy)
        assert passes["passes"] <= 3
        assert tower.id != italy.id

    def test_together_and_apart_agree(self, boot, prompts, monkeypatch):
        model, tables = boot(), []
        for each in (0.0, 1e9):
            monkeypatch.setattr(_rows, "passing", lambda model, each=each: each)
            monkeypatch.setattr(_record, "pass_tokens", lambda model, each=each: each)
            tables.append(swept(model, prompts, n_tokens=2))
        one, other = tables
        assert (one.js > 1e-6).any()
        assert (one.js - other.js).abs().max() < 1e-12


class TestLift:
    """Positions that another run has computed are taken from it, and change nothing."""

    @pytest.mark.parametrize("direction", ["noising", "denoising"])
    @pytest.mark.parametrize("each", [0, 1e9], ids=["apart", "joined"])
    @pytest.mark.parametrize("name", ["tiny_llama", "tiny_gpt2"])
    def test_it_agrees_with_the_reference(
        self, request, prompts, monkeypatch, name, each, direction
    ):
        """A joined pass may begin between the positions of an edit."""
        _staircase = import_module("knockgrid.engine.executors.staircase")

        model, starts = request.getfixturevalue(name), set()
        rows = [
            kg.patch("resid_post", "subject", name="post"),
            kg.patch("resid_pre", "subject", window=3, name="pre"),
            kg.patch("resid_post", [0, "subject"], window="all_but", name="more"),
            kg.patch("resid_post", "subject", alpha=0.5, name="half"),
            kg.patch("resid_post", "subject_last", name="a part"),
            kg.patch("resid_post", "last", name="last"),
        ]
        right = _staircase.run_pass

        def seen(model, runs, plan, grow):
            starts.add((plan.start, any(item.lifted(plan.start) for item in plan.items)))
            return right(model, runs, plan, grow)

        if each:  # whole edits alone, so that a pass begins between the positions of one
            rows = [one for one in rows if one.name in ("post", "pre", "last")]
            text = prompts[1].text
            prompts = [*prompts, kg.Prompt(text, spans={"subject": "Tower is located"}, id="late")]
        monkeypatch.setattr(_rows, "passing", lambda model: each)
        monkeypatch.setattr(_staircase, "run_pass", seen)
        given = {"n_tokens": 2, "samples": 2, "direction": direction}
        fast = swept(model, prompts, rows, **given)
        assert each or {lifted for _, lifted in starts} == {True, False}
        slow = swept(model, prompts, rows, executor="reference", **given)
        assert fast.attrs["knockgrid"]["receipt"]["lift"]
        assert (slow.groupby("intervention").js.max() > 1e-6).all()
        assert (fast.js - slow.js).abs().max() < 1e-12

    def test_a_model_that_cannot_bear_it_goes_without(self, boot, prompts, monkeypatch):
        _staircase = import_module("knockgrid.engine.executors.staircase")

        right = _staircase.prefixes

        def wrong(chosen, plan):
            found, row_prefix = right(chosen, plan)
            return found, row_prefix.clamp(max=len(chosen) - 1)

        monkeypatch.setattr(_staircase, "prefixes", wrong)
        model = boot()
        table = swept(model, prompts[1])
        receipt = table.attrs["knockgrid"]["receipt"]
        assert (receipt["executor"], receipt["lift"]) == ("staircase", False)
        slow = swept(model, prompts[1], executor="reference")
        assert (table.js - slow.js).abs().max() < 1e-12


class TestReceipts:
    def test_one_is_kept_and_says_so(self, boot, prompts, folder, passes, forget):
        model = boot()
        first = swept(model, prompts[1])
        assert "kept" not in first.attrs["knockgrid"]["receipt"]
        forget(model)
        passes.clear()
        again = swept(model, prompts[1])
        assert passes["passes"] <= 3
        receipt = again.attrs["knockgrid"]["receipt"]
        assert receipt["kept"].startswith("20")
        assert (again.js == first.js).all()

    @pytest.mark.parametrize("damage", ["", "{}", "[]", '{"receipt": 3}', "flipped"])
    def test_a_damaged_one_is_none(self, boot, prompts, folder, forget, damage):
        model = boot()
        swept(model, prompts[1])
        (file,) = folder.iterdir()
        text = file.read_text()
        file.write_text(text.replace("staircase", "rectangle") if damage == "flipped" else damage)
        forget(model)
        receipt = swept(model, prompts[1]).attrs["knockgrid"]["receipt"]
        assert "kept" not in receipt
        assert receipt["executor"] == "staircase"
        assert json.loads(file.read_text())["receipt"]["executor"] == "staircase"

    def test_they_are_few(self, boot, prompts, folder, monkeypatch):
        monkeypatch.setattr(_receipts, "MOST", 2)
        for layer in range(4):
            swept(boot(), prompts[1], layers=[layer])
        assert len(list(folder.iterdir())) == 2

    def test_other_weights_and_options_have_their_own(self, boot, prompts, folder, forget):
        model = boot()
        swept(model, prompts[1])
        for change in ("weights", "direction", "kind"):
            forget(model)
            options = {"direction": "denoising"} if change == "direction" else {}
            rows = [kg.patch("resid_post" if change != "kind" else "mlp_out", "subject")]
            if change == "weights":
                rows = None
                next(iter(model.original_model.parameters())).data.mul_(1.01)
            table = swept(model, prompts[1], rows, **options)
            assert "kept" not in table.attrs["knockgrid"]["receipt"]

    def test_a_module_of_the_users_own_has_none(self, boot, prompts, folder):
        class Own(torch.nn.Module):
            pass

        model = boot()
        model.original_model.own = Own().eval()
        swept(model, prompts[1])
        assert not folder.exists()

    def test_check_tries_anew(self, boot, folder, passes):
        model = boot()
        list(checked(model))
        before = passes["passes"]
        list(checked(model))
        assert passes["passes"] == 2 * before

    def test_a_cache_that_cannot_be_written_is_left(self, boot, prompts, folder):
        folder.write_text("a file")
        assert len(swept(boot(), prompts[1]))
        assert folder.read_text() == "a file"


class TestWhatDependsOnTheEdit:
    @pytest.mark.parametrize("where", ["memory", "disk"])
    def test_heads_are_checked_with_a_kept_receipt(self, boot, prompts, folder, forget, where):
        """Four query heads on two of keys: head 3 of a key is none."""
        model = boot()
        swept(model, prompts[1], kg.patch("k", "subject", heads=[0]))
        if where == "disk":
            forget(model)
        with pytest.raises(kg.InputError, match="names head 3, .* heads 0 to 1"):
            swept(model, prompts[1], kg.patch("k", "subject", heads=[3]))

    def test_an_unedited_row_that_is_not_the_run_is_refused(self, boot, prompts, monkeypatch):
        _staircase = import_module("knockgrid.engine.executors.staircase")

        model, right = boot(), _staircase.run_pass
        swept(model, prompts[1])

        def wrong(*args):
            logits = right(*args)
            return logits + 0.3 * torch.arange(logits.shape[-1]) / logits.shape[-1]

        monkeypatch.setattr(_staircase, "run_pass", wrong)
        with pytest.raises(kg.InputError, match="unedited row .* away from its recorded run"):
            swept(model, prompts[1])


class TestDigests:
    @pytest.mark.parametrize("part", [slice(None), 5, (slice(None), slice(8, 16))])
    def test_weights_written_behind_the_counter_are_seen(self, boot, part):
        model = boot()
        before = digests.weights_digest(model)
        weight = next(p for p in model.original_model.parameters() if p.ndim == 2 and len(p) < 99)
        weight.data[part] += 1
        assert digests.weights_digest(model) != before

    def test_they_are_taken_once(self, boot, monkeypatch):
        model, taken = boot(), []
        monkeypatch.setattr(digests, "_weights_digest", lambda model: taken.append(1) or "digest")
        assert [digests.weights_digest(model) for _ in range(3)] == ["digest"] * 3
        assert len(taken) == 1

    def test_a_changed_tokenizer_is_seen(self, tiny_tokenizer):
        tokenizer = copy.deepcopy(tiny_tokenizer)
        before = digests.tokenizer_digest(tokenizer)
        assert before == digests.tokenizer_digest(tiny_tokenizer)
        tokenizer.backend_tokenizer.pre_tokenizer.add_prefix_space = True
        changed = digests.tokenizer_digest(tokenizer)
        assert changed != before
        tokenizer.add_tokens(["knockgrid"])
        assert digests.tokenizer_digest(tokenizer) not in (before, changed)


def test_bars_of_others_stay_out_of_logs_and_warnings_do_not(capsys):
    with without_bars():
        for _ in tqdm(range(3), desc="Loading weights"):
            print("kept", file=sys.stderr)
    assert capsys.readouterr().err == "kept\n" * 3
    for _ in tqdm(range(3), desc="Loading weights"):
        pass
    assert "Loading weights" in capsys.readouterr().err
