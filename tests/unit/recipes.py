"""One call of every public function: on a tiny model, or as its docstring shows it.

A recipe may be a variant, written "name, what is special about it".
"""

import doctest
import inspect
import itertools
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import knockgrid as kg
from knockgrid.engine.bind import bind
from knockgrid.engine.settings import Settings
from knockgrid.passes.prepared import prepare
from knockgrid.prompts.positions import tokenize

TEMPLATE = "{% for turn in messages %}{{ turn.content }}\n{% endfor %}"
RIGHT = ("a", "b")


@dataclass(frozen=True)
class Given:
    """A bridge, its folder, prompts `a` to `d`, the folder of a finished run, a scratch folder."""

    model: Any
    folder: Path
    prompts: list[kg.Prompt]
    run: Path
    scratch: Path

    @property
    def few(self):
        """Two prompts of equal length."""
        return self.prompts[:2]

    @property
    def labelled(self):
        """A frame as from `kg.evidence.labels`, in which half of the prompts are known."""
        frame = pd.DataFrame(
            {
                "prompt": [p.id for p in self.prompts],
                "relation": "capital",
                "correct": [p.id in RIGHT for p in self.prompts],
                "reliance": [0.5, 0.4, 0.45, 0.1],
                "entropy": 1.0,
            }
        )
        return kg.evidence.labels(frame, 0.2)


def rows():
    """Every kind of intervention and source that needs a pass, a number or a run of its own."""
    swap = kg.corrupted_run(by=kg.swap())
    return [
        *kg.information_flow(),
        kg.patch("resid_post", "last", swap, name="swap"),
        kg.patch("mlp_out", "subject", kg.mean_activation(), name="mean"),
        kg.edge_patch(name="edge"),
        kg.knockout(heads=[1], window=1, name="head"),
        kg.patch("resid_post", "subject", kg.sources.ulp(), name="ulp"),
    ]


def swept(given, interventions=None, **options):
    interventions = interventions or kg.information_flow()
    options = {"layers": [0, 1], "progress": False, **options}
    return kg.sweep(given.model, given.few, interventions, **options)


def carried_out(given, executor, n_tokens=1, at_most=None):
    """An executor called by hand, and left half-way when there is an `at_most`."""
    flow = kg.information_flow(kg.corrupted_run(by=kg.swap()))  # needs no set-level statistics
    settings = Settings(flow, (0, 1), n_tokens, 1, "noising", n_tokens > 1, True, 0, keep_kv=True)
    ready = prepare(given.model, given.few, True, n_tokens)
    made = bind(given.model, ready, [0, 1], settings)
    return list(itertools.islice(executor(given.model, made.runs, made.cells), at_most))


def judge(prompt, text):
    return prompt.id in RIGHT


def labelled(given, function, **options):
    return function(given.model, given.prompts, given.labelled, layers=[0], **options)


def compacted(given):
    return kg.runs.compact(shutil.copytree(given.run, given.scratch / "run", dirs_exist_ok=True))


def in_chat(given):
    tokenizer = given.model.tokenizer
    before, tokenizer.chat_template = tokenizer.chat_template, TEMPLATE
    try:
        return kg.prompts.in_chat(given.prompts, tokenizer)
    finally:
        tokenizer.chat_template = before


def cached(given):
    """A Run out of TransformerLens's own cache."""
    prompt = given.prompts[0]
    ids = tokenize(prompt.text, given.model.tokenizer).ids
    # not the text: TransformerLens sets the tokenizer's padding when it is given one
    logits, cache = given.model.run_with_cache(torch.tensor([ids]))
    return kg.passes.from_activation_cache(cache, logits, prompt, given.model)


PROBES = {"seeds": 1, "folds": 2, "progress": False}

PASSES = {  # these run the model
    "sweep": lambda g: swept(g, rows(), samples=2),
    "sweep, later tokens": lambda g: swept(g, n_tokens=2, mode="persistent"),
    "sweep, own tokens": lambda g: swept(g, kg.knockout(), n_tokens=2, mode="free_run"),
    "sweep, denoising": lambda g: swept(
        g, [kg.edge_patch(), kg.patch("resid_post", "last")], direction="denoising"
    ),
    "staircase": lambda g: carried_out(g, kg.executors.staircase),
    "rectangle": lambda g: swept(g, executor="rectangle"),
    "rectangle, abandoned": lambda g: carried_out(g, kg.executors.rectangle, at_most=1),
    "sweep, into a folder": lambda g: swept(
        g, kg.knockout(), batch=1, noise_floor=False, out=g.scratch / "run"
    ),
    "reference": lambda g: swept(g, executor="reference"),
    "reference, abandoned": lambda g: carried_out(g, kg.executors.reference, at_most=2),
    "free_run": lambda g: carried_out(g, kg.executors.free_run, n_tokens=2),
    "known": lambda g: kg.known(g.model, g.prompts, n_tokens=2),
    "reliance": lambda g: kg.evidence.reliance(g.model, g.few, judge=judge, progress=False),
    "noise_floor": lambda g: kg.evidence.noise_floor(g.model, g.few, layers=[0], progress=False),
    "off_manifold": lambda g: kg.evidence.off_manifold(
        g.model, g.prompts, kg.information_flow(), layers=[0], n_prompts=1, progress=False
    ),
    "module_statistics": lambda g: kg.evidence.module_statistics(g.model, g.few, layers=[0]),
    "probe_auc": lambda g: kg.evidence.probe_auc(
        g.model, g.prompts, ["last"], layers=[0], n_tokens=1, judge=judge, **PROBES
    ),
    "label_probe": lambda g: labelled(g, kg.evidence.label_probe, **PROBES),
    "subject_norm": lambda g: labelled(g, kg.evidence.subject_norm),
    "subject_attention": lambda g: labelled(g, kg.evidence.subject_attention),
    "last_similarity": lambda g: labelled(g, kg.evidence.last_similarity),
}

MAIN = [name for name in PASSES if "," not in name]  # without the variants

LOOKS = {  # these are given a model, a tokenizer or a folder, and run nothing
    "load": lambda g: kg.load(g.folder),
    "per_module": lambda g: kg.per_module(g.model, "last"),
    "token_positions": lambda g: kg.token_positions(g.prompts[0], "subject", g.model),
    "in_chat": in_chat,
    "same_answer": lambda given: kg.prompts.same_answer(given.prompts, given.model.tokenizer),
    "facts": lambda g: kg.facts("us_state_capital", tokenizer=g.model.tokenizer),
    "open_run": lambda g: kg.open_run(g.run),
    "scan_run": lambda g: kg.runs.scan_run(g.run).to_table(),
    "export": lambda g: kg.runs.export(g.run, g.scratch / "table.csv"),
    "compact": compacted,
    "report": lambda g: kg.report(g.run, g.scratch / "report.html"),
    "from_activation_cache": cached,
    "to_activation_cache": lambda g: kg.passes.to_activation_cache(cached(g), g.model),
    "verify": lambda g: kg.verify(g.run, model=g.model, cells=2),
}


def example(name):
    """The example in a public name's docstring, as a recipe."""
    found = PUBLIC[name]
    source = "".join(e.source for e in doctest.DocTestParser().get_examples(inspect.getdoc(found)))
    module = inspect.getmodule(found if hasattr(found, "__name__") else type(found))
    assert name in source, f"{name} is not in the example of its docstring"
    assert "demo" not in source, f"the example of {name} needs the demo model: give it a recipe"
    code = compile(source, f"<example of {name}>", "exec")
    return lambda given: exec(code, {**vars(module), name: found})


def base(name):
    """The public name that a recipe is for."""
    return name.split(",")[0]


def public():
    """Every public function and value by its name, those of the rooms included."""
    rooms = [room for one in kg.__all__ if inspect.ismodule(room := getattr(kg, one))]
    found = {name: getattr(room, name) for room in [*rooms, kg] for name in room.__all__}
    found.pop("run")  # `sweep` into a folder is a call of it
    return {
        name: one
        for name, one in found.items()
        if not inspect.ismodule(one) and not (inspect.isclass(one) and name not in VALUES)
    }


VALUES = ("Prompt", "RayEngine", "Spec")  # classes that stand for themselves; others are bases
PUBLIC = public()
OWN = {**PASSES, **LOOKS}
EXAMPLES = sorted(PUBLIC.keys() - set(map(base, OWN)))
