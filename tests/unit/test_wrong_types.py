"""Plausible things of the wrong type, in a Python that checks no types: taken, or one sentence."""

import subprocess
import sys
from pathlib import Path

import pytest

import knockgrid as kg

CALLS = """
import sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, {architectures!r})
import numpy as np, torch
import knockgrid as kg
from families import DENSE, bridge
from words import word_tokenizer

family = next(one for one in DENSE if one.name == "Llama")
model, plain, n = bridge(family, word_tokenizer()), family.build(), np.int64
p = kg.Prompt("in the river of oslo people speak the", spans={{"subject": "river of oslo"}})
mean = "mean_activation()"
k, r = kg.knockout(window=1), kg.patch("resid_post", "subject", kg.zero())


def sweep(*args, **options):
    return kg.sweep(*args, **{{"layers": [1], "progress": False, **options}})


def same(one, other):
    assert len(one) and one["js"].tolist() == other["js"].tolist(), (one, other)


taken = [
    lambda: same(sweep(model, p, kg.knockout(heads=1, window=n(1))),
                 sweep(model, p, kg.knockout(heads=[1], window=1))),
    lambda: same(sweep(model, p, kg.patch("z", n(3), kg.mean_activation(), heads=n(1))),
                 sweep(model, p, kg.patch("z", 3, kg.mean_activation(), heads=[1]))),
    lambda: same(sweep(model, p, kg.edge_patch(n(-1), np.array([2, 3]), heads=np.array([0]))),
                 sweep(model, p, kg.edge_patch(-1, [2, 3], heads=[0]))),
    lambda: same(sweep(model, p, kg.edits.per_window(k, np.array([1, 3])), n_tokens=n(2)),
                 sweep(model, p, kg.edits.per_window(k, [1, 3]), layers=n(1), n_tokens=2)),
    lambda: same(sweep(model, p, kg.patch("resid_post", "subject"), samples=n(2), seed=n(1),
                       batch=n(3), max_rows=n(9)),
                 sweep(model, p, kg.patch("resid_post", "subject"), samples=2, seed=1)),
    lambda: same(sweep(model, p, iter([k])), sweep(model, p, k)),
    lambda: kg.token_positions(p, n(3), model),
    lambda: kg.noise(np.float32(3), pos=np.array([1])),
    lambda: kg.load(model, dtype="float16"),
]
refused = {{
    "LlamaForCausalLM|boot_transformers": lambda: sweep(plain, p, k),
    "LlamaForCausalLM|hf_model": lambda: kg.load(plain),
    "Hooked|TransformerBridge": lambda: kg.load(type("Hooked", (), {{}})()),
    "'float99'|bfloat16": lambda: kg.load("demo", dtype="float99"),
    "'3'|heads=": lambda: kg.knockout(heads="3"),
    "[1.5]|heads=": lambda: kg.patch("z", "last", heads=[1.5]),
    "True|heads=": lambda: kg.edge_patch(heads=True),
    "2.5|'last'": lambda: kg.patch("z", 2.5),
    "joint(|list of edits": lambda: kg.joint(k),
    "'zero'|knockouts or patches": lambda: kg.joint([k, "zero"]),
    "[1.5]|whole numbers": lambda: kg.knockout(layers=1.5),
    "'some'|layer numbers": lambda: kg.all_but("some"),
    "'far'|kg.pairs.farther_than": lambda: kg.knockout(pairs="far"),
    "within(2.5)|number of tokens": lambda: kg.pairs.within(2.5),
    "'a'|seed": lambda: kg.pairs.random_share(0.5, "a"),
    "'last'|number of one layer": lambda: kg.donor(p, layer="last"),
    "place None|'last'": lambda: kg.knockout(dest=None),
    "place None|'subject'": lambda: kg.noise(pos=None),
    "activation is 3|'resid_post'": lambda: kg.patch(3, "last"),
    "activation is None|'resid_post'": lambda: kg.patch(None, "last"),
    "'0.5'|alpha": lambda: kg.patch("z", "last", alpha="0.5"),
    "name is 3|text": lambda: kg.patch("z", "last", name=3),
    "'river'|Prompt(": lambda: sweep(model, ["river"], k),
    "'river of'|Prompt(": lambda: sweep(model, "river of", k),
    "prompts are None|read_prompts": lambda: sweep(model, None, k),
    "prompts are 3|Prompt(": lambda: sweep(model, 3, k),
    "'knockout'|knockout()": lambda: sweep(model, p, "knockout"),
    "metric 3|js": lambda: sweep(model, p, k, metrics=3),
    "out is 3|folder": lambda: sweep(model, p, k, out=3),
    "the text 'zero'|write zero(),": lambda: kg.patch("z", "last", "zero"),
    "the text 'mean_activation()'|write mean_activation(),": lambda: kg.patch("z", "last", mean),
    "the text 'noise(2.0)'|write noise(2.0),": lambda: kg.patch("z", "last", "noise(2.0)"),
    "'zero'|write zero(),": lambda: kg.edge_patch(source="zero"),
    "'mean_activation()'|write mean_activation(),": lambda: kg.edge_patch(source=mean),
    "'noise(2.0)'|write noise(2.0),": lambda: kg.edge_patch(source="noise(2.0)"),
    "alphas are 0.5|list": lambda: kg.edits.per_alpha(r, 0.5),
    "windows are 3|list": lambda: kg.edits.per_window(k, 3),
    "'river'|Prompt( ": lambda: kg.token_positions("river", "last", model.tokenizer),
    "NoneType|sweep": lambda: kg.grid(None),
}}
for call in taken:
    call()
for parts, call in refused.items():
    try:
        call()
    except kg.InputError as reason:
        missing = [part for part in parts.strip().split("|") if part not in str(reason)]
        assert not missing, (parts, str(reason))
    else:
        raise AssertionError(parts)
print("all", len(taken), len(refused))
"""


def test_every_one_is_taken_or_refused_in_a_sentence():
    architectures = str(Path(__file__).parents[1] / "architectures")
    script = CALLS.format(architectures=architectures)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[-3:] == ["all", "9", "39"]


def test_a_quantised_model_that_cannot_be_loaded_is_called_so(tmp_path):
    (tmp_path / "config.json").write_text(
        '{"architectures": ["LlamaForCausalLM"], "model_type": "llama",'
        ' "quantization_config": {"quant_method": "gptq", "bits": 4}}'
    )
    with pytest.raises(kg.InputError, match="is quantised and could not be loaded"):
        kg.load(tmp_path)
