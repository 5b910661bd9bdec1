"""The oracle: sweeps against raw PyTorch hooks on the Hugging Face model itself.

The plain model is loaded on its own, with eager attention; nothing of the bridge or of the
executors takes part. Only the random numbers come from knockgrid, so that both add the same noise.
"""

from contextlib import ExitStack, contextmanager
from functools import cache

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

import knockgrid as kg
from knockgrid.host.demo import demo_folder
from knockgrid.sources.source import normal

LAYERS = (2, 23, 28)
TOLERANCE = 1e-5
FACTS = (
    ("The capital of {} is", "France", "Japan"),
    ("The capital of {} is", "Japan", "Italy"),
    ("The capital of {} is", "Italy", "France"),
    ("The official language of {} is", "Brazil", "Poland"),
    ("The official language of {} is", "Poland", "Brazil"),
    ("{} is located in the city of", "The Eiffel Tower", "The Colosseum"),
    ("{} is located in the city of", "The Colosseum", "The Eiffel Tower"),
    ("The currency of {} is the", "Mexico", "India"),
)


class Raw:
    """The Hugging Face model, and edits made in it by PyTorch hooks alone."""

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer = model, tokenizer
        self.blocks = model.model.layers

    def ids(self, text):
        tokens = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return torch.tensor([[self.tokenizer.bos_token_id, *tokens]])

    def subject(self, text, part):
        """Token indices by decoding one token after the other, BOS counted."""
        start = text.index(part)
        found, at = [], 0
        for i, token in enumerate(self.ids(text)[0].tolist()[1:], start=1):
            end = at + len(self.tokenizer.decode([token]))
            if at < start + len(part) and end > start:
                found.append(i)
            at = end
        assert at == len(text)
        return found

    def logits(self, ids, *hooks):
        """Last logits of a pass under some hooks."""
        with ExitStack() as stack, torch.no_grad():
            for hook in hooks:
                stack.enter_context(hook)
            return self.model(ids, use_cache=False).logits[0, -1]


@contextmanager
def noised(raw, positions, noise):
    """Noise on the embeddings of some positions."""

    def add(module, args, output):
        output = output.clone()
        output[0, positions] += noise
        return output

    handle = raw.model.model.embed_tokens.register_forward_hook(add)
    yield
    handle.remove()


@contextmanager
def saved(modules, into):
    """Keeps what some modules put out."""

    def keep(i):
        def hook(module, args, output):
            into[i] = (output if torch.is_tensor(output) else output[0])[0].clone()

        return hook

    handles = [module.register_forward_hook(keep(i)) for i, module in modules.items()]
    yield
    for handle in handles:
        handle.remove()


@contextmanager
def patched(raw, layer, positions, value):
    """The output of a block at some positions is replaced."""

    def put(module, args, output):
        hidden = (output if torch.is_tensor(output) else output[0]).clone()
        hidden[0, positions] = value
        return hidden if torch.is_tensor(output) else (hidden, *output[1:])

    handle = raw.blocks[layer].register_forward_hook(put)
    yield
    handle.remove()


@contextmanager
def blocked(raw, layers, query, keys):
    """In some layers, the additive mask forbids one query to see some keys."""

    def forbid(module, args, kwargs):
        mask = kwargs["attention_mask"].clone()
        mask[0, :, query, keys] = torch.finfo(mask.dtype).min
        return args, {**kwargs, "attention_mask": mask}

    handles = [
        raw.blocks[i].self_attn.register_forward_pre_hook(forbid, with_kwargs=True) for i in layers
    ]
    yield
    for handle in handles:
        handle.remove()


@contextmanager
def rewired(raw, layers, query, positions, keys, values):
    """In some layers, one query sees other keys and values at some positions."""

    def attend(layer):
        def hook(module, args, kwargs, output):
            hidden = kwargs["hidden_states"][0]
            heads = (hidden.shape[0], -1, module.head_dim)
            k, v = module.k_proj(hidden), module.v_proj(hidden)
            k[positions], v[positions] = keys[layer][positions], values[layer][positions]
            q, k, v = (x.view(heads).transpose(0, 1)[None] for x in (module.q_proj(hidden), k, v))
            q, k = apply_rotary_pos_emb(q, k, *kwargs["position_embeddings"])
            groups = q.shape[1] // k.shape[1]
            k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
            weights = (q[0, :, query] * k[0].transpose(0, 1)).sum(-1) * module.head_dim**-0.5
            mixed = torch.einsum("kh,hkd->hd", weights.softmax(0), v[0])
            out = output[0].clone()
            out[0, query] = module.o_proj(mixed.flatten())
            return (out, *output[1:])

        return hook

    handles = [
        raw.blocks[i].self_attn.register_forward_hook(attend(i), with_kwargs=True) for i in layers
    ]
    yield
    for handle in handles:
        handle.remove()


@pytest.fixture(scope="module")
def raw(demo_model):
    """The demo model's folder, loaded once more by transformers."""
    model = AutoModelForCausalLM.from_pretrained(demo_folder(), attn_implementation="eager")
    assert type(model).__name__ == "LlamaForCausalLM"
    model = model.to(torch.float32).eval().requires_grad_(False)
    return Raw(model, demo_model.tokenizer)


@pytest.fixture(scope="module")
def facts():
    def prompt(template, subject, **more):
        start = template.index("{}")
        text = template.replace("{}", subject)
        return kg.Prompt(text, spans={"subject": (start, start + len(subject))}, **more)

    return [
        prompt(template, subject, swap=prompt(template, other), id=f"{subject} {template}")
        for template, subject, other in FACTS
    ]


@pytest.fixture(scope="module")
def made(raw, facts):
    """Of the first n prompts: ids, places, clean logits and both corrupted runs; n sets sigma."""

    @cache
    def cases(n: int) -> list[dict]:
        where = [raw.subject(p.text, p.span_text("subject")) for p in facts[:n]]
        embed = raw.model.model.embed_tokens
        rows = [embed(raw.ids(p.text))[0, at] for p, at in zip(facts, where, strict=False)]
        sigma = float(torch.cat([row.flatten().double() for row in rows]).std())
        return [case(raw, p, at, sigma) for p, at in zip(facts, where, strict=False)]

    return cases


def case(raw, prompt, at, sigma):
    ids, swap = raw.ids(prompt.text), raw.ids(prompt.swap.text)
    key = (0, prompt.id, "embed", 3.0, "subject", 0)
    noise = 3.0 * sigma * normal((len(at), raw.model.config.hidden_size), key)
    found = {"ids": ids, "subject": at, "last": ids.shape[1] - 1, "noise": noise, "sigma": sigma}
    for name, start, hooks in (
        ("clean", ids, ()),
        ("by_noise", ids, (noised(raw, at, noise),)),
        ("by_swap", swap, ()),
    ):
        kept: dict[str, dict[int, torch.Tensor]] = {"out": {}, "k": {}, "v": {}}
        modules = {
            "out": dict(enumerate(raw.blocks)),
            "k": {i: block.self_attn.k_proj for i, block in enumerate(raw.blocks)},
            "v": {i: block.self_attn.v_proj for i, block in enumerate(raw.blocks)},
        }
        recorders = [saved(modules[what], kept[what]) for what in kept]
        found[name] = {**kept, "logits": raw.logits(start, *hooks, *recorders)}
    return found


def window(layer):
    return [i for i in range(layer - 2, layer + 3) if 0 <= i < 30]


@pytest.fixture(scope="module")
def compare(demo_model, facts, raw, made, scipy_js):
    """Holds sweeps of n prompts against `expected[name](case, layer) -> hooks`."""

    def check(rows, expected, n, executors=("reference", "auto"), **options):
        truth: dict[str, list[float]] = {name: [] for name in expected}
        for name, hooks in expected.items():
            for one in made(n):
                for layer in LAYERS:
                    logits = raw.logits(one["ids"], *hooks(one, layer))
                    truth[name].append(scipy_js(one["clean"]["logits"], logits))
        options |= {"layers": LAYERS, "metrics": ["js"], "progress": False}
        for executor in executors:
            table = kg.sweep(demo_model, facts[:n], rows, executor=executor, **options)
            for name, values in truth.items():
                found = table[table.intervention == name].js.to_numpy()
                np.testing.assert_allclose(found, values, rtol=0, atol=TOLERANCE, err_msg=name)
        return {name: np.array(values).reshape(n, len(LAYERS)) for name, values in truth.items()}

    return check


def patch_by(raw, by, place):
    """A block's output at a place, from a corrupted run."""
    return lambda one, layer: (patched(raw, layer, one[place], one[by]["out"][layer][one[place]]),)


def test_the_plain_model_is_the_demo_model(demo_model, made, scipy_js):
    for one in made(2):
        clean = one["clean"]["logits"]
        with torch.no_grad():
            assert scipy_js(demo_model(one["ids"])[0, -1], clean) < 1e-9
        for by in ("by_noise", "by_swap"):
            assert scipy_js(clean, one[by]["logits"]) > 0.01


def test_the_three_rows_with_noise(compare, raw):
    expected = {
        "subject": patch_by(raw, "by_noise", "subject"),
        "last": patch_by(raw, "by_noise", "last"),
        "attention": lambda one, layer: (blocked(raw, window(layer), one["last"], one["subject"]),),
    }
    found = compare(kg.information_flow(window=5), expected, n=8)
    # Early the subject, then attention, late the last token: on every prompt.
    assert found["subject"][:, 0].min() > 1e-3
    assert found["attention"][:, 1].min() > 1e-3
    assert found["last"][:, -1].min() > 1e-3


def test_the_patch_rows_with_a_swap(compare, raw):
    expected = {place: patch_by(raw, "by_swap", place) for place in ("subject", "last")}
    rows = kg.information_flow(kg.corrupted_run(by=kg.swap()))
    found = compare([rows[0], rows[2]], expected, n=2)
    assert found["subject"][:, 0].min() > 1e-3
    assert found["last"][:, -1].min() > 1e-3


def test_the_noise_level(demo_model, facts, made):
    """The sweep's sigma is the deviation of the subjects' embeddings in its prompt set."""
    row = kg.patch("resid_post", "subject")
    for n in (2, 8):
        table = kg.sweep(demo_model, facts[:n], row, layers=[29], progress=False)
        expected = pytest.approx(made(n)[0]["sigma"], rel=1e-6)
        assert table.attrs["knockgrid"]["sigma"] == {"subject": expected}
    assert made(2)[0]["sigma"] != expected


def test_edge_patches(compare, raw):
    def edges(by):
        return lambda one, layer: (
            rewired(
                raw, window(layer), one["last"], one["subject"], one[by]["k"], one[by]["v"]
            ),
        )  # fmt: skip

    rows = [
        kg.edge_patch(name="by_noise"),
        kg.edge_patch(source=kg.corrupted_run(by=kg.swap()), name="by_swap"),
    ]
    found = compare(rows, {by: edges(by) for by in ("by_noise", "by_swap")}, n=2)
    for values in found.values():
        assert values[:, 1].min() > 1e-3


@pytest.mark.parametrize("executor", ["reference", "auto"])
def test_denoising(compare, raw, executor):
    """Clean states are put into the run with noise; the reference is still the clean run."""

    def restored(one, layer):
        at = one["subject"]
        value = one["clean"]["out"][layer][at]
        return noised(raw, at, one["noise"]), patched(raw, layer, at, value)

    row = kg.patch("resid_post", "subject", name="subject")
    found = compare(row, {"subject": restored}, 2, [executor], direction="denoising")
    # Restored early, nothing is left of the noise; after the last layer, all of it.
    assert found["subject"][:, -1].min() > 1e-3
    assert (found["subject"][:, 0] < found["subject"][:, -1] / 2).all()
