"""Run folders with made-up numbers, written by the run folder's own code: no model, no tokenizer.

What every number and token of them is follows from `expected`, so that tests can say what a page
must show.
"""

import json
import math
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import product
from pathlib import Path

from knockgrid.engine.setup import SetLevel
from knockgrid.prompts.data import prompt_as_data
from knockgrid.prompts.prompt import Prompt
from knockgrid.runs.digests import file_digest
from knockgrid.runs.finish import finish
from knockgrid.runs.manifest import SCHEMA, run_digest, write_manifest
from knockgrid.runs.run_folder import PLAN, SHARDS, STATISTICS, RunFolder
from knockgrid.runs.shard import Shard, arrow_of, schema, write_shard
from knockgrid.runs.start import write_set_level
from knockgrid.spec import Spec, digest
from knockgrid.table.table import build

TREATMENTS = (
    ("subject", "patch resid_post", "corrupted_run(noise(3.0))", 1, "treatment", None),
    ("attention", "knockout", None, 5, "treatment", None),
    ("last", "patch resid_post", "corrupted_run(noise(3.0))", 1, "treatment", None),
)
NULLS = (("subject | ulp", "patch resid_post", "ulp()", 1, "null", "subject"),)
LABELS = {"subject": "Subj.", "attention": "Attn."}
METRICS = ("js", "kl", "kl_reverse", "tv", "logp_clean", "rank_clean")
WORDS = tuple(f" word{i}" for i in range(40))
CITIES = ("Rome", "Oslo", "Lima", "Cairo", "Quito", "Seoul", "Paris", "Delhi", "Accra", "Minsk")


@dataclass
class Made:
    """What a run is made of."""

    n: int = 8
    layers: list[int] = field(default_factory=lambda: [0, 1, 2, 3])
    rows: tuple = (*TREATMENTS, *NULLS)
    relations: int = 2
    top: int = 10
    tokens: int = 1
    per_shard: int = 4
    shards: int | None = None
    texts: dict[int, str] = field(default_factory=dict)
    words: tuple[str, ...] = WORDS
    failed: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, dict[str, str]] = field(default_factory=dict)
    python: bool = False
    scale: float = 1.0
    seed: int = 0
    unit: str = "nats"
    sigma: float = 0.1
    metrics: tuple[str, ...] = METRICS
    wrote: bool = False
    """Whether it is a free run, which keeps what the edited model wrote."""
    places: dict[str, list[dict]] = field(default_factory=dict)
    """Labels of a row, as `head` or `module`, once for every cell that it has at a layer."""

    @property
    def prompts(self) -> list[Prompt]:
        """The prompts; `texts` replaces the text of some."""
        found = []
        for i in range(self.n):
            city = f"{CITIES[i % len(CITIES)]}{i if i >= len(CITIES) else ''}"
            text = self.texts.get(i, f"The city of {city} is the capital of")
            spans = {"subject": city} if city in text else {"subject": (0, min(3, len(text)))}
            answers = (self.words[i % len(self.words)].strip() or "x",)
            told = {"relation": f"relation{i % self.relations}", "group": "FA" if i % 3 else "AH"}
            found.append(Prompt(text, id=f"p{i:03d}", spans=spans, answers=answers, **told))
        return found

    def js(self, prompt: int, row: int, layer: int, token: int = 0) -> float:
        """The JS divergence of a cell: prompts differ, later layers less."""
        return self.scale * 0.5 / (1 + row) / (1 + layer) * (1 + prompt) / self.n / (1 + token)

    def tops(self, prompt: int, row: int, layer: int) -> tuple[list[int], list[float]]:
        """Tokens of an intervened run: those of the clean one, turned by row and layer."""
        turn = prompt + 3 * row + layer
        ids = [(turn + i) % len(self.words) for i in range(self.top)]
        return ids, [math.log(0.5 ** (i + 1)) for i in range(self.top)]


def made_run(folder: Path, made: Made | None = None) -> Made:
    """Write a run folder; `shards` keeps the first ones only, so that it is half-finished."""
    made = made or Made()
    run = RunFolder(folder)
    (folder / SHARDS).mkdir(parents=True)
    prompts, shards = made.prompts, -(-made.n // made.per_shard)
    lines = [prompt_as_data(p, shard=i // made.per_shard) for i, p in enumerate(prompts)]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / PLAN).write_text(text, encoding="utf-8")
    (folder / STATISTICS).write_bytes(write_set_level(SetLevel({}, {})))
    write_manifest(folder, manifest_of(made, folder, shards), replace=False)
    for number in range(shards if made.shards is None else made.shards):
        mine = range(made.n)[number * made.per_shard : (number + 1) * made.per_shard]
        write_shard(shard_of(made, prompts, mine, number, run), run.shard_path(number))
    if made.shards is None:
        finish(run)
    return made


def manifest_of(made: Made, folder: Path, shards: int) -> dict:
    names = [row[0] for row in made.rows]
    settings = Spec(layers=made.layers, n_tokens=made.tokens, top=made.top, seed=made.seed).plain()
    if made.python:
        settings |= {"model": None, "prompts": {"prompts": made.n, "digest": "0" * 16}}
    top = ("top_tokens", "top_logp") if made.top else ()
    columns = [*made.metrics, *(("written",) if made.wrote else ()), *top]
    whole = {
        **{"schema": SCHEMA, "config": settings, "config_digest": digest(settings)},
        "started": "2026-01-01T00:00:00+00:00",
        "begun_by": sha256(str(folder).encode()).hexdigest()[:8],
        "finished": None,
        "hardware": {"machine": "x", "system": "y", "cpus": 1, "threads": 1, "gpu": None},
        "mode": "free_run" if made.wrote else "prompt_only",
        **{"unit": made.unit, "metrics": list(made.metrics), "direction": "noising"},
        **{"samples": 1, "seed": made.seed, "prepend_bos": True, "n_tokens": made.tokens},
        **{"layer_order": made.layers, "intervention_order": names},
        "labels": {n: LABELS.get(n, n) for n in names},
        "interventions": [described(*row) for row in made.rows],
        "sigma": {"subject": made.sigma},
        "model": {
            **{"name": "made-up", "architecture": "None", "n_layers": 30, "d_model": 8},
            **{"n_heads": 2, "d_vocab": 400, "dtype": "float32", "device": "cpu"},
            **{"attn_implementation": "eager", "compatibility_mode": False},
            **{"weights_digest": "0" * 64, "tokenizer_digest": "1" * 64},
        },
        "receipt": {
            "executor": "reference",
            "maximal_effects": {"knockout": 0.5},
            "tried": [{"executor": "reference", "kinds": {}}],
        },
        "versions": {
            **{"python": "3.11", "knockgrid": "0.1.0", "transformer-lens": "4.3.0"},
            **{"transformers": "5", "torch": "2", "pandas": "3"},
        },
        "selection": None,
        "noise_floor": {"js": {"overall": 1e-9, "cells": {}}},
        "plan": {
            **{"prompts": made.n, "shards": shards, "columns": columns},
            "digests": {name: file_digest(folder / name) for name in (PLAN, STATISTICS)},
        },
    }
    return {**whole, "run_digest": run_digest(whole)}


def described(name, kind, source, window, role, of) -> dict:
    """An intervention as `describe` and `as_data` give it."""
    row, named = name.split(" ")[0], {"name": name, "window": window, "role": role, "of": of}
    whole = {**named, "row": row, "kind": kind, "source": source, "place": row}
    whole["corruption"] = source and source.removeprefix("corrupted_run(").removesuffix(")")
    data = {**named, "kind": kind.split(" ")[0], "label": LABELS.get(name, name)}
    if kind != "knockout":
        data |= {"act_name": "resid_post", "pos": row}
        data["source"] = {"kind": "ulp" if role == "null" else "corrupted_run"}
    return {**whole, "data": data}


def shard_of(made: Made, prompts: list, mine: range, number: int, run: RunFolder) -> Shard:
    ok = [i for i in mine if prompts[i].id not in made.failed]
    rows = [row for i in ok for row in rows_of(made, prompts[i], i)]
    manifest, ids = run.manifest, [prompts[i].id for i in mine]
    columns = manifest["plan"]["columns"]
    frame = build(rows, {}, columns) if rows else None
    about = {
        **{"config": manifest["config_digest"], "run": manifest["run_digest"], "number": number},
        "prompts": ids,
        "sides": [side_of(made, prompts[i], i) for i in ok],
        "dropped": made.dropped if number == 0 else {},
        "failed": {p: e for p, e in made.failed.items() if p in ids},
        "computed": {},
        "texts": {str(i): text for i, text in enumerate(made.words)},
    }
    return Shard(arrow_of(frame, schema(columns)), about)


def rows_of(made: Made, prompt: Prompt, i: int):
    for r, (name, *_) in enumerate(made.rows):
        for layer in made.layers:
            for token, where in product(range(made.tokens), made.places.get(name, [{}])):
                place = {"prompt": prompt.id, "relation": prompt.relation, "group": prompt.group}
                place |= {"intervention": name, **where}
                row = {**place, "layer": layer, "layers": str(layer), "token": token}
                row |= {"token_text": made.words[i % len(made.words)], "samples": 1}
                if prompt.id in made.dropped.get(name, {}):
                    yield {**row, "status": f"NA: {made.dropped[name][prompt.id]}"}
                    continue
                js = made.js(i, r, layer, token) if "ulp" not in name else 1e-10
                said = {"js": js, "kl": 3 * js, "kl_reverse": 2 * js, "tv": js / 2}
                said |= {"logp_clean": -1 - js, "rank_clean": float(layer)}
                answered = bool(prompt.answers) and token == 0
                said["logp_answer"] = -2 - js if answered else math.nan
                said["rank_answer"] = float(layer + 1) if answered else None
                row |= {name: said[name] for name in made.metrics}
                if made.wrote and token == 0:
                    row["written"] = f"{made.words[(i + layer) % len(made.words)]} of {name}"
                if made.top:
                    ids, logp = made.tops(i, r, layer)
                    row |= {"top_tokens": ids, "top_logp": logp}
                yield row


def side_of(made: Made, prompt: Prompt, i: int) -> dict:
    words = prompt.text.split(" ")
    tokens = [words[0], *(f" {word}" for word in words[1:])]
    subject = prompt.span_text("subject")
    at = [k for k, token in enumerate(tokens) if token.strip() == subject] or [0]
    ids = [(i + k) % len(made.words) for k in range(made.top)]
    logp = [math.log(0.6**k * 0.4) for k in range(made.top)]
    kept = {"top_tokens": [ids] * made.tokens, "top_logp": [logp] * made.tokens}
    return {
        "id": prompt.id,
        "text": prompt.text,
        "spans": {"subject": list(map(int, prompt.spans["subject"]))},
        **{"subject": subject, "relation": prompt.relation, "group": prompt.group},
        **{"answers": list(prompt.answers), "n_prompt": len(tokens), "subject_tokens": at},
        "tokens": tokens,
        "generated": [made.words[i % len(made.words)]] * made.tokens,
        **{"logp_clean": -1.0, "logp_answer_clean": -2.0, "rank_answer_clean": made.n - i},
        **{"js_corrupted": {}, "swap": None},
        **(kept if made.top else {}),
    }
