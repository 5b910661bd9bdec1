"""probe_auc: how well a linear probe reads off an activation that the answer will be wrong."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.display.progress import bar
from knockgrid.edits import patch, per_position
from knockgrid.edits.layers import layer_list
from knockgrid.edits.patch import Patch
from knockgrid.engine.answers import answer_length, decode_output
from knockgrid.engine.checks import check_edits, check_places
from knockgrid.engine.record import record_clean
from knockgrid.engine.settings import Settings
from knockgrid.engine.setup import settings_of
from knockgrid.errors import InputError
from knockgrid.evidence.out_of_fold import auc_and_control, need_sklearn, subject_groups, too_few
from knockgrid.host.bridge import check_ready, describe, load, n_layers
from knockgrid.passes.answer_positions import absent, positions_in
from knockgrid.passes.prepared import Prepared, batches, default_bos, prepare
from knockgrid.passes.run import Run, continue_greedily
from knockgrid.prompts.matching import Judge, judged
from knockgrid.prompts.positions import Position
from knockgrid.prompts.prompt import Prompt
from knockgrid.sources import zero
from knockgrid.spec import Spec
from knockgrid.table.table import build

Place = tuple[str, int]  # position name and layer


def probe_auc(
    model: str | Path | TransformerBridge,
    prompts: Sequence[Prompt],
    positions: int | Sequence[Position],
    *,
    layers: str | int | Sequence[int] = "all",
    act_name: str = "resid_post",
    n_tokens: int = 8,
    seeds: int = 5,
    folds: int = 5,
    judge: Judge | None = None,
    prepend_bos: bool | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Error detection: how well a linear probe tells wrong answers from right ones, by place.

    Example:
        >>> import knockgrid as kg
        >>> prompts = kg.facts("us_state_capital")[4:10]
        >>> few = {"layers": [29], "n_tokens": 2, "seeds": 2, "folds": 2}
        >>> table = kg.evidence.probe_auc("demo", prompts, ["last_q"], **few, progress=False)
        >>> table[["prompt", "position", "layer", "n_prompts"]].values.tolist()
        [['seed 0', 'last_q', 29, 6], ['seed 1', 'last_q', 29, 6]]
        >>> bool(table.auc.between(0, 1).all())
        True

    Args:
        model: a bridge, or what `load` takes.
        prompts: prompts with answers, of which the model gets some right and some wrong.
        positions: what `per_position` takes; a name of several tokens stands for their mean.
        layers: `"all"`, or layers in the order in which figures show them.
        act_name: TransformerLens short name of the activation that is read.
        n_tokens: as in `sweep`; positions are found in one token of greedy output fewer. Give both
            the same, so that positions from the end are the same tokens.
        seeds: how many times the split is drawn; the seeds are 0, 1, ...
        folds: parts of the split; each part is scored by a probe fitted on the others.
        judge: `(prompt, text) -> bool`, whether an output is right; by default as in `known`.
        prepend_bos: whether BOS comes first; by default as the model is configured.
        progress: whether to show a progress bar.

    Returns:
        A tidy table, one row per seed (column `prompt`), position and layer. `auc` is the share of
        pairs of an incorrect and a correct prompt in which the incorrect one scores higher: 0.5
        tells nothing, below 0.5 the probe is misled. `auc_shuffled` is the same with shuffled
        labels. `n_prompts` have the position, `n_incorrect` of them were answered wrong. A place
        where fewer subjects than folds were answered right, or wrong, is NA.

    A prompt is correct when its greedy continuation begins with one of its answers, as in `known`.
    The probe is scikit-learn's `LogisticRegression` with its defaults, but for up to 1000
    iterations. Scores are pooled over folds; no prompt and no subject is both fitted and scored.

    Raises:
        InputError: no scikit-learn, bad input, a prompt without answers, or prompts that were all
            answered right or all wrong.

    Source: Orgad et al., arXiv 2410.02707, who score one split of 80 to 20.
    Limit: what a probe reads need not be used by the model (`readable_not_used`). Among several
    relations of unequal difficulty, reading the relation is enough to beat 0.5. `exact_answer_*`
    lie at a prompt's given answers: a prompt answered wrong has them only where an answer comes
    up later in its output.
    """
    need_sklearn()
    model = load(model)
    check_ready(model)
    check_counts(n_tokens, seeds, folds)
    chosen = layer_list(layers, n_layers(model))
    columns = per_position(patch(act_name, "last", zero()), positions)
    check_edits(model, columns, chosen)
    bos = default_bos(model, prepend_bos)
    ready = prepare(model, prompts, bos, n_tokens)
    check_places(ready, columns, n_tokens)
    check_answers(ready, judge)
    settings = settings_of(Spec(n_tokens=n_tokens, top=0), columns, chosen, bos)
    examples = read(model, ready, settings, progress, judge)
    n_incorrect = count_incorrect(examples)
    rows = list(probe_rows(examples, columns, chosen, seeds, folds, progress))
    metadata = {
        "act_name": columns[0].act_name,
        "layer_order": list(chosen),
        "position_order": [one.position for one in columns],
        "labels": {"probe": "Probe"},
        "statistics": {
            "auc": "AUC (incorrect = positive)",
            "auc_shuffled": "AUC, labels shuffled",
        },
        "positive_class": "incorrect",
        "seeds": list(range(seeds)),
        "folds": folds,
        "n_tokens": n_tokens,
        "prepend_bos": bos,
        "n_correct": len(examples) - n_incorrect,
        "n_incorrect": n_incorrect,
        "incorrect": [one.prompt.id for one in examples if one.incorrect],
        "model": describe(model),
    }
    return build(rows, metadata)


@dataclass(frozen=True, eq=False)
class Example:
    """What a probe learns from: a prompt, whether its answer was wrong, activations by place."""

    prompt: Prompt
    incorrect: bool
    acts: Mapping[Place, np.ndarray] = field(repr=False)


def check_counts(n_tokens: int, seeds: int, folds: int) -> None:
    """Refuse counts that leave nothing to compute.

    Raises:
        InputError: one below its least value.
    """
    for name, value, least in (("n_tokens", n_tokens, 1), ("seeds", seeds, 1), ("folds", folds, 2)):
        if isinstance(value, bool) or value < least:
            raise InputError(f"{name} is {value!r}; give a whole number of at least {least}")


def check_answers(ready: Sequence[Prepared], judge: Judge | None = None) -> None:
    """Refuse prompts of which it cannot be said whether they were answered right.

    Raises:
        InputError: a prompt without answers, and no judge.
    """
    for one in ready:
        if not one.prompt.answers and judge is None:
            raise InputError(
                f"prompt {one.prompt.id!r} has no answers, so it is neither right nor wrong; "
                "give Prompt(text, answers=[...]) or a judge"
            )


def read(
    model: TransformerBridge,
    ready: Sequence[Prepared],
    settings: Settings,
    progress: bool,
    judge: Judge | None = None,
) -> list[Example]:
    """One example per prompt, in the order of the prompts."""
    found: dict[str, Example] = {}
    columns = [one for one in settings.interventions if isinstance(one, Patch)]
    with bar(len(ready), " prompts", "read", progress) as done:
        for batch in batches(ready):
            runs = record_clean(model, batch, settings)
            for run, said in zip(runs, outputs(model, runs), strict=True):
                wrong = not judged(run.prompt, said, judge)
                acts = dict(activations(run, columns, settings.layers))
                found[str(run.prompt.id)] = Example(run.prompt, wrong, acts)
            done.update(len(batch))
    return [found[str(one.prompt.id)] for one in ready]


def outputs(model: TransformerBridge, runs: Sequence[Run]) -> list[str]:
    """The greedy continuation of every run of a batch, as long as its answers need."""
    length = answer_length(model.tokenizer, runs)
    missing = length - runs[0].n_tokens
    new = torch.tensor([run.generated for run in runs]).to(runs[0].ids.device)
    if missing > 0:
        prompts = torch.stack([run.ids[: run.n_prompt] for run in runs])
        ids = continue_greedily(model, torch.cat([prompts, new], dim=1), missing)
        new = ids[:, runs[0].n_prompt :]
    return [decode_output(model.tokenizer, row) for row in new.tolist()]


def activations(
    run: Run, columns: Sequence[Patch], layers: Sequence[int]
) -> Iterator[tuple[Place, np.ndarray]]:
    """The activation at every place that a run has, averaged over its tokens, `[d]` in float32."""
    for one in columns:
        if absent(run, one.pos) is None:
            pos = list(positions_in(run, one.pos))
            for layer in layers:
                act = run.acts[one.act_name, layer][pos].float().mean(0)
                yield (str(one.position), layer), act.flatten().cpu().numpy()


def count_incorrect(examples: Sequence[Example]) -> int:
    """How many prompts were answered wrong.

    Raises:
        InputError: all or none of them.
    """
    wrong = sum(one.incorrect for one in examples)
    if wrong in (0, len(examples)):
        was, other = ("right", "wrong") if wrong == 0 else ("wrong", "right")
        raise InputError(
            f"every prompt was answered {was}, so there is nothing to detect; add prompts that "
            f"the model answers {other}, such as those of other relations"
        )
    return wrong


def probe_rows(
    examples: Sequence[Example],
    columns: Sequence[Patch],
    layers: Sequence[int],
    seeds: int,
    folds: int,
    progress: bool,
) -> Iterator[dict[str, Any]]:
    """The rows of the table, seed by seed."""
    places = [(str(one.position), layer) for one in columns for layer in layers]
    groups = subject_groups([one.prompt for one in examples])
    total = seeds * len(places)
    with bar(total, " probes", "fit", progress) as done:
        for seed in range(seeds):
            for place in places:
                position, layer = place
                yield {
                    "prompt": f"seed {seed}",
                    "intervention": "probe",
                    "layer": layer,
                    "position": position,
                    "token": None,  # a probe measures no token
                    **probe_at(place, examples, groups, folds, seed),
                }
                done.update()


def probe_at(
    place: Place, examples: Sequence[Example], groups: np.ndarray, folds: int, seed: int
) -> dict[str, Any]:
    """The AUCs at one place and over how many prompts, or the status that says why there are none.

    Prompts that lack the place are left out.
    """
    have = [i for i, one in enumerate(examples) if place in one.acts]
    incorrect = np.array([examples[i].incorrect for i in have], dtype=bool)
    counts = {"n_prompts": len(have), "n_incorrect": int(incorrect.sum())}
    reason = too_few(incorrect, groups[have], folds)
    if reason is None:
        acts = np.stack([examples[i].acts[place] for i in have])
        found = auc_and_control(acts, incorrect, groups[have], folds, seed)
        if found is not None:
            return {"auc": found[0], "auc_shuffled": found[1], **counts}
        reason = "a fold would be learnt from one class"
    return {"auc": np.nan, "auc_shuffled": np.nan, **counts, "status": f"NA: {reason}"}
