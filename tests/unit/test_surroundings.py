"""What a notebook does around a sweep changes no number, or is refused, or tells runs apart."""

import copy
from contextlib import contextmanager

import jaxtyping
import numpy as np
import pandas as pd
import pytest
import torch

import knockgrid as kg
from knockgrid.engine.slower import FallbackWarning
from knockgrid.host.bridge import check_ready
from knockgrid.host.digests import tokenizer_digest
from knockgrid.sources.source import normal


@pytest.fixture
def rows():
    return [
        kg.patch("resid_post", "subject", kg.corrupted_run(), name="corrupted"),
        kg.patch("resid_post", "last", kg.noise(), name="noise"),
        kg.knockout(window=1, name="attention"),
    ]


@pytest.fixture
def unchecked(monkeypatch):
    """Outside of tests nothing checks types but the functions themselves."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@contextmanager
def under(name, value):
    """With a setting of PyTorch's, which it reads by `get_` and writes by `set_`."""
    before, write = getattr(torch, f"get_{name}")(), getattr(torch, f"set_{name}")
    write(value)
    try:
        yield
    finally:
        write(before)


class TestPrecision:
    def test_draws_do_not_depend_on_the_default_dtype(self, sweep, prompts, rows):
        drawn, table = normal((4, 8), (0, "a")), sweep(prompts, rows, layers=[1, 2])
        for dtype in (torch.float64, torch.bfloat16):
            with under("default_dtype", dtype):
                again = normal((4, 8), (0, "a"))
                assert again.dtype == torch.float32
                assert torch.equal(again, drawn)
                pd.testing.assert_frame_equal(sweep(prompts, rows, layers=[1, 2]), table)

    def test_nor_on_the_default_device(self):
        with torch.device("meta"):
            assert normal((4, 8), (0, "a")).device.type == "cpu"

    def test_autocast_is_refused(self, sweep, prompts, rows):
        with (
            torch.autocast("cpu", torch.bfloat16),
            pytest.raises(kg.InputError, match="torch.autocast is on for cpu"),
        ):
            sweep(prompts, rows)
        with torch.autocast("cpu", torch.bfloat16, enabled=False):
            sweep(prompts, rows, layers=[1])

    def test_a_device_without_autocast_is_none(self, boot):
        """Asked about, PyTorch raises for `meta`, where the weights of an offloaded model are."""
        model = boot()
        model.cfg.device = "meta"
        check_ready(model)

    def test_a_run_does_not_go_on_in_another_precision(self, sweep, prompts, rows, tmp_path):
        table = sweep(prompts, rows, layers=[1], noise_floor=False, out=tmp_path / "run")
        assert table.attrs["knockgrid"]["model"]["matmul_precision"] == "highest"
        with (
            under("float32_matmul_precision", "medium"),
            pytest.raises(kg.InputError, match="matmul_precision differ"),
        ):
            sweep(prompts, rows, layers=[1], noise_floor=False, out=tmp_path / "run")


class TestModel:
    def test_a_hook_that_no_sweep_would_call_is_refused(self, boot, sweep, prompts, rows):
        model = boot()
        handle = model.register_forward_hook(lambda module, args, out: out * 0.1)
        with pytest.raises(kg.InputError, match="a PyTorch hook on the bridge itself"):
            sweep(prompts, rows, model=model)
        handle.remove()
        sweep(prompts, rows, model=model, layers=[1])

    def test_a_replaced_module_is_tried_anew(self, boot, sweep, prompts):
        """One that clears the first position it sees cannot run with a cache."""

        class Clears(torch.nn.Module):
            def __init__(self, base):
                super().__init__()
                self.base = base

            def forward(self, x):
                y = self.base(x).clone()
                y[:, 0] = 0
                return y

        model = boot()
        row = kg.patch("resid_post", "last", kg.zero())
        sweep(prompts, row, model=model, layers=[1])
        parent = model.original_model.get_submodule("model.layers.2")
        parent = getattr(parent, "_original_component", parent).mlp
        parent = getattr(parent, "_original_component", parent).down_proj
        parent._original_component = Clears(parent._original_component).eval()
        with pytest.warns(FallbackWarning, match="runs on the reference executor"):
            table = sweep(prompts, row, model=model, layers=[1])
        wanted = sweep(prompts, row, model=model, layers=[1], executor="reference")
        pd.testing.assert_series_equal(table.js, wanted.js)

    @pytest.mark.parametrize(
        "call",
        [
            lambda model: model("The capital of Italy is"),
            lambda model: model.to_tokens(["one", "two of them"]),
            lambda model: model.run_with_cache("The capital of Italy is"),
            lambda model: model.tokenizer(["one"], truncation=True, max_length=4),
        ],
    )
    def test_a_run_goes_on_after_any_call_of_the_model(
        self, boot, sweep, prompts, rows, tmp_path, call
    ):
        """Such calls leave padding and truncation behind, set on the tokenizer."""
        model = boot()
        model.tokenizer = tokenizer = copy.deepcopy(model.tokenizer)
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()
        digest = tokenizer_digest(tokenizer)
        table = sweep(
            prompts, rows, model=model, layers=[1], noise_floor=False, out=tmp_path / "run"
        )
        call(model)
        tokenizer.backend_tokenizer.enable_padding(pad_id=3, pad_token='","added_tokens":[')
        tokenizer.backend_tokenizer.enable_truncation(7)
        assert tokenizer_digest(tokenizer) == digest
        call(model)
        again = sweep(
            prompts, rows, model=model, layers=[1], noise_floor=False, out=tmp_path / "run"
        )
        pd.testing.assert_frame_equal(again, table)


@pytest.mark.usefixtures("unchecked")
class TestNumbers:
    @pytest.mark.parametrize("given", [np.int64(3), np.int32(3), np.uint8(3)])
    def test_a_seed_of_numpy_is_that_of_python(self, sweep, prompts, rows, tmp_path, given):
        table = sweep(prompts, rows, layers=[1], seed=3)
        again = sweep(
            prompts, rows, layers=[1], seed=given, noise_floor=False, out=tmp_path / "run"
        )
        pd.testing.assert_series_equal(again.js, table.js)
        assert type(again.attrs["knockgrid"]["seed"]) is int

    @pytest.mark.parametrize("given", [True, 1.0, None, "a", np.bool_(True)])
    def test_what_is_no_seed_is_refused(self, sweep, prompts, rows, given):
        with pytest.raises(kg.InputError, match="^seed is .*; give a whole number$"):
            sweep(prompts, rows, seed=given)

    def test_prepend_bos(self, sweep, prompts, rows, tmp_path):
        table = sweep(prompts, rows, layers=[1], prepend_bos=False)
        given = np.bool_(False)
        again = sweep(
            prompts, rows, layers=[1], prepend_bos=given, noise_floor=False, out=tmp_path / "run"
        )
        pd.testing.assert_series_equal(again.js, table.js)
        for given in ("no", 1, "False"):
            with pytest.raises(kg.InputError, match="give True, False or None"):
                sweep(prompts, rows, prepend_bos=given)


@pytest.mark.usefixtures("unchecked")
class TestContainers:
    def test_prompts(self, tiny_llama, sweep, prompts, rows, tmp_path):
        table = sweep(prompts, rows, layers=[1])
        for i, given in enumerate((pd.Series(prompts), np.array(prompts), iter(prompts))):
            again = sweep(given, rows, layers=iter([1]), noise_floor=False, out=tmp_path / str(i))
            pd.testing.assert_series_equal(again.js, table.js)
        asked = pd.Series([one.replace(answers=("x",)) for one in prompts])
        assert len(kg.known(tiny_llama, asked).dropped) <= len(prompts)
        pd.testing.assert_series_equal(sweep(iter(prompts), rows, layers=[1]).js, table.js)

    @pytest.mark.parametrize(
        ("field", "given", "says"),
        [
            ("id", 3, "id is 3, which is no text; write '3'"),
            ("id", np.int64(3), "write '3'"),
            ("relation", float("nan"), "relation is nan"),
            ("group", 1, "group is 1, which is no text; write '1'"),
            ("answers", [1990], "answer is 1990, which is no text; write '1990'"),
            ("answers", [None], "answer is None, which is no text"),
            ("answers", None, "answers is None"),
            ("answers", 5, "answers is 5"),
        ],
    )
    def test_names_that_are_no_text(self, field, given, says):
        with pytest.raises(kg.InputError) as caught:
            kg.Prompt("Rome is in", **{field: given})
        assert says in str(caught.value)

    def test_answers_of_an_iterator_are_kept(self):
        answers = iter(["Italy", "Europe"])
        assert kg.Prompt("Rome is in", answers=answers).answers == ("Italy", "Europe")

    @pytest.mark.parametrize(
        ("option", "given", "says"),
        [("layers", None, "layer None"), ("layers", 3.0, "layer 3.0"), ("metrics", None, "js")],
    )
    def test_options_that_are_none(self, sweep, prompts, rows, option, given, says):
        with pytest.raises(kg.InputError, match=says):
            sweep(prompts, rows, **{option: given})


def test_a_donor_may_be_the_partner_of_a_swap(sweep, prompts):
    """A swap must have the same length; a donor need not, whoever else it is."""
    _, tower, italy = prompts
    row = kg.patch("resid_post", "last", kg.donor(tower), name="donated")
    alone = sweep([italy.replace(swap=None)], row, layers=[1, 2])
    partner = sweep([italy.replace(swap=tower)], row, layers=[1, 2])
    assert alone.js.notna().all()
    pd.testing.assert_series_equal(partner.js, alone.js)
    swapped = kg.patch("resid_post", "last", kg.corrupted_run(by=kg.swap()), name="swapped")
    table = sweep([italy.replace(swap=tower)], [row, swapped], layers=[1, 2])
    assert table.attrs["knockgrid"]["dropped"]["swapped"].keys() == {"italy"}
