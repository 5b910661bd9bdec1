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
def swept(sweep, prompts, tmp_path):
    """Three rows at layer 1, where nothing else is said; into a run folder where one is named."""
    rows = [
        kg.patch("resid_post", "subject", kg.corrupted_run(), name="corrupted"),
        kg.patch("resid_post", "last", kg.noise(), name="noise"),
        kg.knockout(window=1, name="attention"),
    ]

    def run(given=prompts, rows=rows, out=None, **options):
        if out is not None:
            options |= {"out": tmp_path / out, "noise_floor": False}
        return sweep(given, rows, **{"layers": [1], **options})

    return run


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
    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_draws_do_not_depend_on_the_default_dtype(self, swept, dtype):
        drawn, table = normal((4, 8), (0, "a")), swept(layers=[1, 2])
        with under("default_dtype", dtype):
            again = normal((4, 8), (0, "a"))
            assert again.dtype == torch.float32
            assert torch.equal(again, drawn)
            pd.testing.assert_frame_equal(swept(layers=[1, 2]), table)

    def test_nor_on_the_default_device(self):
        with torch.device("meta"):
            assert normal((4, 8), (0, "a")).device.type == "cpu"

    def test_autocast_is_refused(self, swept):
        with torch.autocast("cpu", torch.bfloat16, enabled=False):
            swept()
        with (
            torch.autocast("cpu", torch.bfloat16),
            pytest.raises(kg.InputError, match="torch.autocast is on for cpu"),
        ):
            swept()

    def test_a_device_without_autocast_is_none(self, boot):
        """Asked about, PyTorch raises for `meta`, where the weights of an offloaded model are."""
        model = boot()
        model.cfg.device = "meta"
        check_ready(model)

    def test_a_run_does_not_go_on_in_another_precision(self, swept):
        table = swept(out="run")
        assert table.attrs["knockgrid"]["model"]["matmul_precision"] == "highest"
        with (
            under("float32_matmul_precision", "medium"),
            pytest.raises(kg.InputError, match="matmul_precision differ"),
        ):
            swept(out="run")


class TestModel:
    def test_a_hook_that_no_sweep_would_call_is_refused(self, boot, swept):
        model = boot()
        handle = model.register_forward_hook(lambda module, args, out: out * 0.1)
        with pytest.raises(kg.InputError, match="a PyTorch hook on the bridge itself"):
            swept(model=model)
        handle.remove()
        swept(model=model)

    def test_a_replaced_module_is_tried_anew(self, boot, swept):
        """One that clears the first position it sees cannot run with a cache."""

        class Clears(torch.nn.Module):
            def __init__(self, base):
                super().__init__()
                self.base = base

            def forward(self, x):
                y = self.base(x).clone()
                y[:, 0] = 0
                return y

        options = {"model": boot(), "rows": kg.patch("resid_post", "last", kg.zero())}
        swept(**options)
        parent = options["model"].original_model.get_submodule("model.layers.2")
        for name in ("mlp", "down_proj"):
            parent = getattr(getattr(parent, "_original_component", parent), name)
        parent._original_component = Clears(parent._original_component).eval()
        with pytest.warns(FallbackWarning, match="runs on the reference executor"):
            table = swept(**options)
        pd.testing.assert_series_equal(table.js, swept(**options, executor="reference").js)

    @pytest.mark.parametrize(
        "call",
        [
            lambda model: model("The capital of Italy is"),
            lambda model: model.to_tokens(["one", "two of them"]),
            lambda model: model.run_with_cache("The capital of Italy is"),
            lambda model: model.tokenizer(["one"], truncation=True, max_length=4),
        ],
    )
    def test_a_run_goes_on_after_any_call_of_the_model(self, boot, swept, call):
        """Such calls leave padding and truncation behind, set on the tokenizer."""
        model = boot()
        model.tokenizer = tokenizer = copy.deepcopy(model.tokenizer)
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()
        digest = tokenizer_digest(tokenizer)
        table = swept(model=model, out="run")
        call(model)
        tokenizer.backend_tokenizer.enable_padding(pad_id=3, pad_token='","added_tokens":[')
        tokenizer.backend_tokenizer.enable_truncation(7)
        assert tokenizer_digest(tokenizer) == digest
        call(model)
        pd.testing.assert_frame_equal(swept(model=model, out="run"), table)


@pytest.mark.usefixtures("unchecked")
class TestGiven:
    @pytest.mark.parametrize(
        ("option", "given", "plain"),
        [
            *(("seed", given, 3) for given in (np.int64(3), np.int32(3), np.uint8(3))),
            ("prepend_bos", np.bool_(False), False),
        ],
    )
    def test_a_number_of_numpy_is_that_of_python(self, swept, option, given, plain):
        again = swept(out="run", **{option: given})
        pd.testing.assert_series_equal(again.js, swept(**{option: plain}).js)
        assert type(again.attrs["knockgrid"][option]) is type(plain)

    @pytest.mark.parametrize(
        ("option", "given", "says"),
        [
            *(
                ("seed", given, "^seed is .*; give a whole number$")
                for given in (True, 1.0, None, "a", np.bool_(True))
            ),
            *(("prepend_bos", given, "give True, False or None") for given in ("no", 1, "False")),
            ("layers", None, "layer None"),
            ("layers", 3.0, "layer 3.0"),
            ("metrics", None, "js"),
        ],
    )
    def test_options_that_are_refused(self, swept, option, given, says):
        with pytest.raises(kg.InputError, match=says):
            swept(**{option: given})

    @pytest.mark.parametrize("kind", [pd.Series, np.array, iter])
    def test_prompts_in_any_container(self, tiny_llama, swept, prompts, kind):
        js = swept().js
        pd.testing.assert_series_equal(swept(kind(prompts), out="run", layers=iter([1])).js, js)
        pd.testing.assert_series_equal(swept(kind(prompts)).js, js)
        asked = kind([one.replace(answers=("x",)) for one in prompts])
        assert len(kg.known(tiny_llama, asked).dropped) <= len(prompts)

    @pytest.mark.parametrize(
        ("field", "given", "says"),
        [
            ("id", 3, "id is 3, which is no text; write '3'"),
            ("id", np.int64(3), "write '3'"),
            ("relation", float("nan"), "relation is nan"),
            ("group", 1, "group is 1, which is no text; write '1'"),
            ("continuation", 5, "continuation is 5, which is no text; write '5'"),
            ("continuation", float("nan"), "continuation is nan, which is no text; give a text"),
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


def test_a_donor_may_be_the_partner_of_a_swap(swept, prompts):
    """A swap must have the same length; a donor need not, whoever else it is."""
    _, tower, italy = prompts
    row = kg.patch("resid_post", "last", kg.donor(tower), name="donated")
    alone = swept([italy.replace(swap=None)], row, layers=[1, 2])
    partner = swept([italy.replace(swap=tower)], row, layers=[1, 2])
    assert alone.js.notna().all()
    pd.testing.assert_series_equal(partner.js, alone.js)
    swapped = kg.patch("resid_post", "last", kg.corrupted_run(by=kg.swap()), name="swapped")
    table = swept([italy.replace(swap=tower)], [row, swapped], layers=[1, 2])
    assert table.attrs["knockgrid"]["dropped"]["swapped"].keys() == {"italy"}
