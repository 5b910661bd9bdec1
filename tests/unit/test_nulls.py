"""Nulls and contrasts: what they put where, against plain hooks; each alone on every executor."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import knockgrid as kg
from knockgrid.passes.edit import formula
from knockgrid.prompts import same_answer
from knockgrid.sources.pushes import Ulp, to_neighbour
from knockgrid.sources.source import Where

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
NUMPY = {torch.float64: np.float64, torch.float32: np.float32, torch.float16: np.float16}
SUBJECT = {"france": (4,), "italy": (4,), "tower": (1, 2, 3)}


def awkward(dtype):
    """Zeros, powers of two, the ends of a binade, subnormal and large numbers, of both signs."""
    info = torch.finfo(dtype)
    powers = [2.0**k for k in (-9, -1, 0, 1, 6)]
    some = [0.0, *powers, *(p * (1 - info.eps / 2) for p in powers), 0.1, 3.7, 100.3]
    some += [info.tiny, info.smallest_normal * 1.5, info.max / 2, info.max * (1 - info.eps)]
    both = torch.tensor([*some, *(-x for x in some)], dtype=torch.float64).to(dtype)
    return torch.cat([both, torch.full_like(both[:1], info.smallest_normal) / 2])


def neighbours(values, up):
    """The next numbers up or down; for bfloat16 those of float32 with a 16 times shorter end."""
    dtype = values.dtype
    to = np.where(up.numpy(), np.inf, -np.inf)
    if dtype in NUMPY:
        return torch.from_numpy(np.nextafter(values.numpy(), to.astype(NUMPY[dtype])))
    return torch.nextafter(values, torch.from_numpy(to).to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_ulp_leads_to_the_neighbouring_finite_number(dtype):
    values = awkward(dtype)
    for way in (True, False):
        up = torch.full(values.shape, way)
        step = to_neighbour(values, up)
        assert step.dtype == dtype
        moved = formula(values, step, add=True)
        assert torch.equal(moved, neighbours(values, up))
        assert ((moved > values) == up).all()
    largest = torch.tensor([torch.finfo(dtype).max, -torch.finfo(dtype).max], dtype=dtype)
    assert to_neighbour(largest, torch.tensor([True, False])).tolist() == [0.0, 0.0]
    assert (to_neighbour(largest, torch.tensor([False, True])) != 0).all()


def test_the_signs_of_ulps_are_drawn_by_their_key():
    def step(**changes):
        given = {"act_name": "resid_post", "layer": 0, "base": torch.ones(40, 50)}
        return Ulp().value(Where(**{**given, "key": (0, "a", "ulp()", 0), **changes}))

    first = step()
    assert torch.equal(first, step())
    share = (first > 0).float().mean()
    assert 0.45 < share < 0.55
    for change in ({"layer": 1}, {"act_name": "z"}, {"key": (0, "a", "ulp()", 1)}):
        other = step(**change)
        assert 0.4 < ((first > 0) == (other > 0)).float().mean() < 0.6


def test_ulps_are_added_to_the_pass_s_own_activation(sweep, telling, prompts, outputs):
    row = kg.patch("resid_post", "subject", kg.sources.ulp(), name="p")
    sweep(prompts, row, executor=telling)
    for prompt in prompts:
        base = outputs(prompt.text)[2, list(SUBJECT[prompt.id])]
        (edit,) = telling.edits[prompt.id, "p", 2, 0]
        assert edit.add
        size = edit.value.abs() / base.abs()
        assert (size > 2.0**-54).all()
        assert (size <= 2.0**-52).all()
        assert {-1.0, 1.0} == set(edit.value.sign().flatten().tolist())


@pytest.mark.parametrize(
    "source",
    [
        kg.corrupted_run(),
        kg.corrupted_run(by=kg.swap()),
        kg.noise(2.0),
        kg.mean_activation(),
        kg.zero(),
    ],
    ids=lambda source: source.label,
)
def test_a_random_direction_goes_as_far_as_its_source(sweep, telling, prompts, outputs, source):
    rows = [
        kg.patch("resid_post", "subject", source, name="it"),
        kg.patch("resid_post", "subject", kg.sources.random_direction(source), name="p"),
    ]
    some = [prompts[0], prompts[2]]
    sweep(some, rows, executor=telling, samples=2 if source.random else 1)
    for prompt in some:
        for layer in (0, 3):
            base = outputs(prompt.text)[layer, list(SUBJECT[prompt.id])]
            (theirs,) = telling.edits[prompt.id, "it", layer, 0]
            (mine,) = telling.edits[prompt.id, "p", layer, 0]
            moved = theirs.value if theirs.add else theirs.value - base
            assert mine.add
            assert moved.norm(dim=-1).min() > 1e-3
            torch.testing.assert_close(mine.value.norm(dim=-1), moved.norm(dim=-1))
            cosine = torch.cosine_similarity(mine.value, moved, dim=-1)
            assert (cosine.abs() < 0.75).all()
    drawn = [telling.edits[p.id, "p", i, 0][0].value[-1] for p in some for i in range(4)]
    directions = torch.nn.functional.normalize(torch.stack(drawn))
    alike = directions @ directions.T
    assert (alike - torch.eye(8)).abs().max() < 0.75


def test_a_random_direction_of_heads_is_matched_head_by_head(sweep, telling, prompts):
    rows = [
        kg.patch("z", "last", kg.zero(), heads=[2], name="it"),
        kg.patch("z", "last", kg.sources.random_direction(kg.zero()), heads=[2], name="p"),
    ]
    table = sweep(prompts, rows, executor=telling, layers=[1])
    (mine,) = telling.edits["tower", "p", 1, 0]
    assert mine.value.shape == (1, 4, 8)
    assert table.js.min() > 0


def test_a_prompt_that_the_source_lacks_is_dropped_from_its_random_direction(sweep, prompts):
    source = kg.sources.random_direction(kg.corrupted_run(by=kg.swap()))
    table = sweep(prompts, [kg.patch("resid_post", "subject", source, name="p")], layers=[0])
    assert set(table.prompt) == {"france", "italy"}
    assert set(table.attrs["knockgrid"]["dropped"]["p"]) == {"tower"}


# same answer


def fact(subject, answer, text="The city of {} is in", relation="city", **more):
    start = text.index("{}")
    spans = {"subject": (start, start + len(subject))}
    answers = [answer] if isinstance(answer, str) else answer
    text = text.format(subject)
    given = {"spans": spans, "answers": answers, "relation": relation, "id": subject}
    return kg.Prompt(text, **{**given, **more})


def test_partners_share_form_relation_and_an_answer(tiny_tokenizer):
    texts = [f"The city of {name} is in" for name in ("Rome", "Paris", "Oslo")]
    lengths = [len(tiny_tokenizer(text)["input_ids"]) for text in texts]
    assert lengths[0] == lengths[1] != lengths[2]
    prompts = [
        fact("Rome", "Italy"),
        fact("Paris", ["x", "ITALY"]),  # in another case, as one of several
        fact("Rome", "Italy", id="again"),  # the same subject
        fact("Oslo", "Italy"),  # another length
        fact("Brazil", "France"),  # another answer
        fact("France", "Italy", relation="other"),
        fact("Italy", "Italy", text="The town of {} is in"),
    ]
    found = same_answer(prompts, tiny_tokenizer)
    assert {name: partner.id for name, partner in found.items()} == {
        "Rome": "Paris",
        "Paris": "again",
        "again": "Paris",
    }


def test_partners_have_their_subject_at_the_same_tokens(tiny_tokenizer):
    one = kg.Prompt("The city of Rome is", spans={"subject": "Rome"}, answers=["x"], id="one")
    other = kg.Prompt("The city of Paris is", spans={"subject": "city"}, answers=["x"], id="other")
    assert same_answer([one, other], tiny_tokenizer) == {}
    assert same_answer([], tiny_tokenizer) == {}
    given = [("one", " Rome is old"), ("other", " Paris is old"), ("third", " Paris was")]
    some = [
        kg.Prompt("The city:", continuation=c, spans={"subject": c.split()[0]}, answers=["x"], id=i)
        for i, c in given
    ]
    found = same_answer(some, tiny_tokenizer)
    assert {name: partner.id for name, partner in found.items()} == {"one": "other", "other": "one"}
    with pytest.raises(kg.InputError, match="has no span 'subject'"):
        same_answer([kg.Prompt("Rome is in")], tiny_tokenizer)


def test_partners_vary(tiny_tokenizer):
    prompts = [fact(name, "x") for name in ("Rome", "Paris", "Brazil")]
    found = same_answer(prompts, tiny_tokenizer)
    assert [found[p.id].id for p in prompts] == ["Paris", "Brazil", "Rome"]


# the rows

AT, NULLS = ("random", "rest", "bos", "last"), ("ulp", "direction", "same answer")
ROWS = [
    f"{of} | {what}"
    for of, lacks in (("subject", "last"), ("attention", "direction"), ("last", "last"))
    for what in (*AT, *NULLS)
    if what != lacks
]


def test_the_contrasts_of_information_flow():
    rows = {row.name: row for row in kg.contrasts()}
    assert list(rows) == [name for name in ROWS if name.split(" | ")[1] in AT]
    assert {row.role for row in rows.values()} == {"contrast"}
    assert [row.of for row in rows.values()] == [name.split(" | ")[0] for name in rows]
    for at, said in (("random", "random tokens"), ("rest", "relation tokens"), ("bos", "BOS")):
        row = rows[f"subject | {at}"]
        assert row.label == f"Subj. | {said}"
        assert (row.pos, row.source.by.pos) == (at, at)
        assert row.describe() | {"role": "contrast", "of": "subject"} == row.describe()
        row = rows[f"last | {at}"]
        assert (row.pos, row.source.by.pos) == ("last", at)
    for at in AT:
        row = rows[f"attention | {at}"]
        assert (row.dest, row.src, row.window) == ("last", at, 5)


def test_contrasts_keep_what_their_treatment_has():
    patched = kg.patch(
        "mlp_out", "subject", kg.corrupted_run(by=kg.noise(1.5)), 3, alpha=0.5, name="a"
    )
    cut = kg.knockout(window=9, heads=[1], name="b")
    edges = kg.edge_patch(window=2, name="c")
    emptied = kg.patch("resid_post", "subject", kg.zero(), name="d")
    rows = {row.name: row for row in kg.contrasts([patched, cut, edges, emptied])}
    one = rows["a | rest"]
    assert (one.act_name, one.window, one.alpha, one.source.by.k) == ("mlp_out", 3, 0.5, 1.5)
    assert (rows["b | bos"].window, rows["b | bos"].heads) == (9, (1,))
    assert (rows["c | bos"].src, rows["c | bos"].source.by.pos) == ("bos", "bos")
    assert (rows["d | rest"].pos, rows["d | rest"].source) == ("rest", kg.zero())


def test_a_swap_has_no_contrast_at_other_tokens():
    rows = kg.contrasts(kg.information_flow(kg.corrupted_run(by=kg.swap())))
    assert {row.of for row in rows} == {"attention"}
    assert kg.contrasts([kg.patch("resid_post", "last", kg.zero())]) == []


@pytest.mark.parametrize(
    "row",
    [
        kg.patch("resid_post", "rest"),
        kg.knockout("last", "rest"),
        kg.knockout("rest", "subject"),
        kg.edge_patch("last", "rest"),
        kg.contrasts()[0],
        kg.nulls()[0],
    ],
)
def test_rows_without_contrasts_are_refused(row):
    with pytest.raises(kg.InputError, match="are not defined|give the treatments|not an interv"):
        kg.contrasts([row])
    if row.role != "treatment":
        with pytest.raises(kg.InputError, match=f"is a {row.role} of 'subject'"):
            kg.nulls([row])


def test_the_nulls_of_information_flow(prompts):
    rows = {row.name: row for row in kg.nulls(partners={"france": prompts[2]})}
    assert list(rows) == [name for name in ROWS if name.split(" | ")[1] in NULLS]
    assert {row.role for row in rows.values()} == {"null"}
    assert {row.of for row in rows.values()} == {"subject", "attention", "last"}
    one = rows["attention | ulp"]
    assert (one.act_name, one.pos, one.window) == ("attn_out", "last", 5)
    assert rows["last | direction"].source == kg.sources.random_direction(kg.corrupted_run())
    assert rows["attention | same answer"].window == 5
    assert rows["subject | same answer"].source.label == "donor(1 prompts)"


def test_an_unknown_role_is_refused():
    with pytest.raises(kg.InputError, match="unknown role 'contrasts'; did you mean 'contrast'"):
        replace(kg.knockout(), role="contrasts")


def test_prompts_that_lack_a_place_are_dropped_and_counted(sweep, prompts):
    """Without BOS, and where no token is left; a treatment there is refused, as ever."""
    short = kg.Prompt("France is", spans={"subject": "France"}, id="short")
    rows = [*kg.information_flow(), *kg.contrasts()]
    table = sweep([prompts[0], short], rows, prepend_bos=False)
    dropped = {name: set(why) for name, why in table.attrs["knockgrid"]["dropped"].items()}
    by = {"random": {"short"}, "rest": {"short"}, "bos": {"short", "france"}}
    by = {name: by.get(name.split(" | ")[1]) for name in ROWS}
    assert {name: why for name, why in dropped.items() if why} == {n: w for n, w in by.items() if w}
    assert "is empty in" in table.attrs["knockgrid"]["dropped"]["last | bos"]["france"]
    with pytest.raises(kg.InputError, match="place 'rest' is empty in prompt 'short'"):
        sweep([prompts[0], short], [kg.knockout("last", "rest")])


class Through:
    """An executor, with what it moved in the logits of every cell."""

    def __init__(self, inner):
        self.inner, self.name, self.needs_kv = inner, inner.name, inner.needs_kv
        self.moved = {}

    def __call__(self, model, runs, cells):
        for outcome in self.inner(model, runs, cells):
            cell = outcome.cell
            prompt = runs[cell.runs[outcome.sample]].prompt.id
            key = (cell.intervention.name, prompt, cell.layer, len(runs))
            self.moved[key] = (outcome.logits - outcome.null).clone()
            yield outcome


@pytest.mark.parametrize("tiny", ["tiny_llama", "tiny_gpt2"])
def test_every_row_is_that_of_the_reference(sweep, prompts, request, tiny):
    """Logits of every cell: a ulp of float64 is seen in them, though in no divergence."""
    partners = {prompts[0].id: prompts[2], prompts[2].id: prompts[0]}
    rows, found = [*kg.contrasts(), *kg.nulls(partners=partners)], []
    assert sorted(row.name for row in rows) == sorted(ROWS)
    for inner in (kg.executors.reference, kg.executors.staircase, kg.executors.rectangle):
        found.append(Through(inner))
        sweep(prompts, rows, model=request.getfixturevalue(tiny), executor=found[-1], layers=[0, 2])
    theirs, *others = (through.moved for through in found)
    for mine in others:
        for key, moved in mine.items():
            # where key lengths differ, TransformerLens's softmax rounds in float32
            torch.testing.assert_close(moved, theirs[key], rtol=1e-4, atol=1e-5)
    sizes = dict.fromkeys(ROWS, 0.0)
    for (name, *_), moved in theirs.items():
        if name in sizes:  # preflight has cells of its own
            sizes[name] = max(sizes[name], float(moved.abs().max()))
    assert min(size for name, size in sizes.items() if "ulp" not in name) > 1e-3
    assert max(size for name, size in sizes.items() if "ulp" in name) < 1e-6
    # the norms of Llama round to float32, and a ulp of float64 is lost in them
    assert tiny == "tiny_llama" or sizes["last | ulp"] > 1e-16


def test_a_push_goes_as_far_as_the_rows_own_source():
    rows = kg.information_flow(kg.corrupted_run(by=kg.swap()))
    pushed = [one.source.label for one in kg.nulls(rows) if one.name.endswith("direction")]
    assert pushed == ["random_direction(corrupted_run(swap()))"] * 2
