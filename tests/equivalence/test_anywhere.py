"""The whole text is measured: sentence by sentence against masked whole passes of plain PyTorch."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import log_softmax, rel_entr
from transformers import AutoModelForCausalLM

import knockgrid as kg
from knockgrid.engine import anywhere
from knockgrid.engine.executors import rows as rows_of_a_pass
from knockgrid.engine.executors import states
from knockgrid.host.demo import demo_folder
from knockgrid.passes import chunked, unembed
from knockgrid.reports.methods import methods

ASKED, GIVEN = (
    "The Eiffel Tower is located in",
    " the city of Paris, and the capital of Italy is Rome. The capital of France is Paris.",
)
SPANS = {
    "s0": "the city of Paris,",
    "s1": "and the capital of Italy is Rome.",
    "s2": "The capital of France is Paris.",
}
THOUGHT = (
    " First, Tom has 3 apples. Then he buys 4 apples. So we add 3 and 4. That makes 7 apples. We "
    "can check it: 7 minus 4 is 3. So the answer is 7."
)
T = 0.6
WITHIN = 1e-6  # TransformerLens' softmax is float32 inside
quiet = {"progress": False, "metrics": ["kl", "js"]}


@pytest.fixture(scope="module")
def trace():
    spans = {"subject": "Eiffel Tower", **SPANS}
    return kg.Prompt(ASKED, continuation=GIVEN, spans=spans, id="trace")


@pytest.fixture(scope="module")
def at(trace, tiny_llama):
    return {name: kg.token_positions(trace, name, tiny_llama) for name in (*SPANS, "all", "last")}


@pytest.fixture(scope="module")
def rows():
    return kg.per_span(kg.knockout(dest="all", src="span", layers="all"), tuple(SPANS))


def masked_passes(raw, ids):
    """Log-probabilities `[pos, d_vocab]` at T of whole passes in which no query sees some keys."""

    def logp(keys=()):
        def forbid(module, args, kwargs):
            mask = kwargs["attention_mask"].clone()
            for key in keys:
                mask[..., key:, key] = torch.finfo(mask.dtype).min
            return args, {**kwargs, "attention_mask": mask}

        layers = [block.self_attn for block in raw.model.layers]
        handles = [one.register_forward_pre_hook(forbid, with_kwargs=True) for one in layers]
        with torch.no_grad():
            logits = raw(ids, use_cache=False).logits[0]
        for handle in handles:
            handle.remove()
        return log_softmax(logits.double().numpy() / T, axis=-1)

    return logp


@pytest.fixture(scope="module")
def loop(trace, at, tiny_llama, plain_of):
    """KL and JS at every position `[edited span, position]`, by masked whole passes."""
    raw = plain_of(tiny_llama)
    found = tiny_llama.tokenizer(trace.whole, add_special_tokens=False)["input_ids"]
    ids = torch.tensor([[1, *found]])

    logp = masked_passes(raw, ids)
    clean, made = logp(), {"kl": [], "js": []}
    for name in SPANS:
        edited = logp(at[name])
        p, q = np.exp(clean), np.exp(edited)
        made["kl"].append(rel_entr(p, q).sum(-1))
        made["js"].append((rel_entr(p, (p + q) / 2) + rel_entr(q, (p + q) / 2)).sum(-1) / 2)
    return {name: np.array(values) for name, values in made.items()}


def matrix(loop, at, metric, of=lambda values: values):
    return np.array([[of(row[list(at[n])]).mean() for n in SPANS] for row in loop[metric]])


@pytest.mark.parametrize("executor", ["auto", "reference", "rectangle"])
@pytest.mark.parametrize("size", ["whole", "parts"])
def test_sentence_by_sentence(tiny_llama, trace, rows, at, loop, executor, size, monkeypatch):
    if size == "parts":
        monkeypatch.setattr(chunked, "SCORES", 1)
        monkeypatch.setattr(chunked, "LEAST", 5)
        monkeypatch.setattr(anywhere, "HELD", 1)
        monkeypatch.setattr(anywhere, "LOGITS", 1)
    options = {**quiet, "executor": executor, "temperature": T}
    table = kg.sweep(tiny_llama, trace, rows, measure=list(SPANS), **options)
    told = table.attrs["knockgrid"]["receipt"]["executor"]
    assert told == ("staircase" if executor == "auto" else executor)
    assert table["layer"].isna().all()
    assert table["token"].isna().all()
    for metric in ("kl", "js"):
        mine = kg.grid(table, metric, rows="span", columns="measured")
        assert list(mine.index) == list(mine.columns) == list(SPANS)
        np.testing.assert_allclose(mine, matrix(loop, at, metric), rtol=0, atol=WITHIN)
        logs = kg.grid(table, metric, rows="span", columns="measured", mean="log")
        expected = matrix(loop, at, metric, lambda values: np.log(values + 1e-9))
        np.testing.assert_allclose(logs, expected, rtol=0, atol=1e-3)
        assert (np.tril(mine, -1)[np.tril_indices(3, -1)] == 0).all()  # before the edit
        assert mine.loc["s0", "s1"] > 1e-3


def test_token_by_token(tiny_llama, trace, rows, at, loop):
    table = kg.sweep(tiny_llama, trace, rows, measure="tokens", temperature=T, **quiet)
    n, first = loop["kl"].shape[1], len(kg.token_positions(trace, "last", tiny_llama)) - 1
    for name, truth in zip(SPANS, loop["kl"], strict=True):
        mine = table[table["span"] == name]
        assert list(mine["token"]) == list(range(-at["last"][0], n - at["last"][0]))
        np.testing.assert_allclose(mine["kl"], truth, rtol=0, atol=WITHIN)
        assert (mine["kl"].to_numpy()[: at[name][0]] == 0).all()
        assert mine["kl"].to_numpy()[at[name][0]] > 0
    assert first == 0
    after = table[(table["span"] == "s0") & (table["token"] >= 0)]
    assert "".join(after["token_text"].dropna()) == GIVEN
    with pytest.raises(kg.InputError, match="mix several values of 'token'"):
        kg.grid(table, "kl", rows="span", columns="layers")


def test_all_are_the_spans_of_each_prompt(tiny_llama, trace, rows):
    short = kg.Prompt(ASKED, continuation=" the city of Rome.", spans={"s0": "of Rome"}, id="short")
    table = kg.sweep(tiny_llama, [trace, short], rows[:1], measure="all", **quiet)
    assert list(table[table["prompt"] == "short"]["measured"]) == ["s0"]
    assert list(table[table["prompt"] == "trace"]["measured"]) == ["subject", *SPANS]
    named = kg.sweep(tiny_llama, [trace, short], rows[:1], measure=["s0", "s2"], **quiet)
    lacks = named[(named["prompt"] == "short") & (named["measured"] == "s2")].iloc[0]
    assert lacks["status"] == "NA: the prompt has no 's2'"
    assert np.isnan(lacks["kl"])


KINDS = [
    kg.patch("resid_post", "s1", kg.zero(), name="patch"),
    kg.patch("mlp_out", "s0", kg.corrupted_run(by=kg.noise(pos="s0")), name="noise"),
    kg.edge_patch("s2", "s0", kg.corrupted_run(by=kg.noise(pos="s0")), 3, name="edges"),
    kg.knockout("all", "s0", 1, pairs=kg.pairs.farther_than(4), name="far"),
    kg.joint([kg.knockout("s2", "s0", layers=[1]), kg.patch("z", "s1", kg.zero(), layers=[2])]),
]


@pytest.mark.parametrize("one", KINDS, ids=lambda one: one.kind)
@pytest.mark.parametrize(("mode", "parts"), [("prompt_only", True), ("persistent", False)])
def test_executors_agree_on_each_kind(tiny, trace, one, mode, parts, monkeypatch):
    if parts:
        monkeypatch.setattr(chunked, "SCORES", 1)
        monkeypatch.setattr(chunked, "LEAST", 5)
        monkeypatch.setattr(states, "PASS", 1)
    found = [
        kg.sweep(tiny, trace, one, measure="tokens", executor=name, mode=mode, **quiet)
        for name in ("reference", "staircase", "rectangle")
    ]
    for other in found[1:]:  # a KL of several nats holds that softmax's rounding several times
        np.testing.assert_allclose(other["kl"], found[0]["kl"], rtol=WITHIN, atol=WITHIN)
    assert float(found[0]["kl"].max()) > 1e-5


@pytest.mark.parametrize("options", [{"direction": "denoising"}, {"samples": 2}])
def test_the_other_direction_and_samples(tiny_llama, trace, options):
    row = kg.patch("resid_post", "s0", kg.corrupted_run(by=kg.noise(pos="s0")))
    found = [
        kg.sweep(
            tiny_llama, trace, row, layers=[0, 2], measure="all", executor=name, **quiet, **options
        )
        for name in ("reference", "auto")
    ]
    np.testing.assert_allclose(found[1]["kl"], found[0]["kl"], rtol=0, atol=WITHIN)
    assert float(found[0]["kl"].max()) > 1e-4
    drawn = kg.sweep(tiny_llama, trace, row, layers=[0, 2], measure="all", **quiet)
    assert not np.allclose(drawn["kl"], found[0]["kl"])


def test_other_measures_where_nothing_is_edited(tiny_llama, trace, rows, at):
    """A log-probability is the clean one there, and no zero."""
    options = {"progress": False, "metrics": ["logp_clean", "rank_clean", "tv"]}
    mine = [
        kg.sweep(tiny_llama, trace, rows[1:2], measure="tokens", executor=name, **options)
        for name in ("auto", "reference")
    ]
    before = mine[0].iloc[: at["s1"][0]]
    assert (before["logp_clean"] < -0.1).all()
    assert (before[["tv", "rank_clean"]] == 0).all(axis=None)
    pd.testing.assert_frame_equal(
        mine[0][["logp_clean", "rank_clean", "tv"]],
        mine[1][["logp_clean", "rank_clean", "tv"]],
        atol=WITHIN,
    )


def test_a_no_op_is_rounding_and_half_precision_has_its_own_clean_row(
    tiny_folder, trace, monkeypatch
):
    beside = []

    def layout(start, part, nulls):
        beside.append(nulls)
        return rows_of_a_pass.layout(start, part, nulls)

    monkeypatch.setattr(states, "layout", layout)
    row = kg.knockout("all", "s0", layers="all", heads=[])
    for dtype, most in (("float64", 1e-14), ("float32", 1e-9), ("bfloat16", 0.0)):
        model = kg.load(tiny_folder, dtype=dtype)
        table = kg.sweep(model, trace, row, measure="tokens", **quiet)
        assert float(table["kl"].max()) <= most
        assert beside[-1] is (dtype == "bfloat16")


def test_a_pass_over_one_token_stands_in_for_the_unembedding(tiny_llama, trace, rows, monkeypatch):
    direct = kg.sweep(tiny_llama, trace, rows, measure="all", **quiet)
    monkeypatch.setattr(unembed.Unembedding, "_agree", lambda self, some: False)
    passes = kg.sweep(tiny_llama, trace, rows, measure="all", **quiet)
    np.testing.assert_allclose(passes["kl"], direct["kl"], rtol=0, atol=1e-12)


def test_spans_that_share_tokens_are_allowed_and_said(tiny_llama, trace, rows):
    more = trace.with_spans({"both": (trace.spans["s0"][0], trace.spans["s1"][1])})
    with pytest.warns(UserWarning, match=r"'s0' and 'both' of prompt 'trace' share tokens"):
        table = kg.sweep(tiny_llama, more, rows, measure="all", **quiet)
    wide = kg.grid(table, "kl", rows="span", columns="measured").loc["s0"]
    assert min(wide["s0"], wide["s1"]) < wide["both"] < max(wide["s0"], wide["s1"])
    edited = kg.per_span(kg.knockout("last", "span", layers="all"), ["s0", "both"])
    with pytest.warns(UserWarning, match=r"'s0' and 'both' of prompt 'trace' share tokens"):
        kg.sweep(tiny_llama, more, edited, **quiet)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"measure": "some"}, "measure is 'some'; give 'all'"),
        ({"measure": []}, "give 'all'"),
        ({"measure": ["s9"]}, "unknown measured span 's9'"),
        ({"measure": "all", "mode": "free_run"}, "writes its own text"),
        ({"measure": "all", "metrics": ["p_change"]}, "compare answers or runs after the prompt"),
    ],
)
def test_what_cannot_be_measured_is_refused(tiny_llama, trace, rows, options, said):
    with pytest.raises(kg.InputError, match=said):
        kg.sweep(tiny_llama, trace, rows, progress=False, **options)


def test_a_prompt_without_spans_and_an_executor_without_states_are_refused(tiny_llama, trace, rows):
    bare = kg.Prompt("The capital of Italy is")
    with pytest.raises(kg.InputError, match="no span to measure"):
        kg.sweep(tiny_llama, bare, kg.patch("z", "last", kg.zero()), measure="all", progress=False)

    class Mine:
        name, needs_kv = "mine", False

        def __call__(self, model, runs, cells):
            yield from kg.executors.reference(model, runs, cells)

    with pytest.raises(kg.InputError, match="executor 'mine' gives what follows a prompt"):
        kg.sweep(tiny_llama, trace, rows, measure="all", executor=Mine(), progress=False)


def test_sentences_of_the_demo_model_in_float32():
    """As a user runs it: the bundled model, and the loop that the paper's code makes of it."""
    model = kg.load("demo")
    raw = AutoModelForCausalLM.from_pretrained(demo_folder(), attn_implementation="eager")
    trace = kg.Prompt("Tom has 3 apples and buys 4 more.", continuation=THOUGHT)
    trace = trace.with_spans(kg.sentences(trace))
    names = trace.span_names
    rows = kg.per_span(kg.knockout(dest="all", src="span", layers="all"), names)
    table = kg.sweep(model, trace, rows, measure="all", temperature=T, **quiet)
    mine = kg.grid(table, "kl", rows="span", columns="measured").to_numpy()
    at = {name: kg.token_positions(trace, name, model) for name in names}
    logp = masked_passes(raw, torch.tensor([model.tokenizer(trace.whole)["input_ids"]]))
    clean = logp()
    edited = [rel_entr(np.exp(clean), np.exp(logp(at[name]))).sum(-1) for name in names]
    truth = [[row[list(at[name])].mean() for name in names] for row in edited]
    np.testing.assert_allclose(mine, truth, rtol=0, atol=1e-5)
    assert len(names) == 6
    assert np.triu(mine, 1).max() > 0.1


def test_a_run_folder_keeps_it(tiny_llama, trace, rows, tmp_path):
    options = {**quiet, "temperature": T, "measure": "all"}
    table = kg.sweep(tiny_llama, trace, rows, out=tmp_path / "run", **options)
    again = kg.open_run(tmp_path / "run")
    pd.testing.assert_frame_equal(pd.DataFrame(again), pd.DataFrame(table))
    found = kg.verify(tmp_path / "run", model=tiny_llama, cells=9)
    assert found.ok, found.mismatches
    text = methods(tmp_path / "run")
    assert "what follows each token of the text, averaged" in text
    assert "Bogdan" in text
    kg.report(tmp_path / "run")
    ax = kg.figures.span_heatmap(again, mean="log")
    assert [label.get_text() for label in ax.get_yticklabels()] == list(SPANS)
    assert "log(KL" in ax.figure.axes[-1].get_ylabel()
