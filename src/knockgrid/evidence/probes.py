"""probe_auc and label_probe: how well a linear probe tells two classes of prompts apart."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.display.progress import bar
from knockgrid.edits import patch, per_position
from knockgrid.edits.patch import Patch
from knockgrid.engine.answers import answer_length, outputs
from knockgrid.engine.exact_answers import exact_answers
from knockgrid.engine.record import record_clean
from knockgrid.engine.settings import Settings
from knockgrid.engine.setup import versions
from knockgrid.errors import InputError, check_counts
from knockgrid.evidence.checked import checked
from knockgrid.evidence.label_curves import labels_of
from knockgrid.evidence.matched import SIDES, check_sides
from knockgrid.evidence.out_of_fold import (
    fits,
    narrowed,
    need_sklearn,
    subject_groups,
)
from knockgrid.host.bridge import describe, load
from knockgrid.passes.answer_positions import absent, is_exact, positions_in
from knockgrid.passes.prepared import Prepared, batches
from knockgrid.passes.run import Exact, Run
from knockgrid.prompts.matching import Judge, judged
from knockgrid.prompts.positions import Position
from knockgrid.prompts.prompt import Prompt
from knockgrid.sources import zero
from knockgrid.spec import rules_as_data
from knockgrid.table.metadata import exact_counts
from knockgrid.table.table import build, metadata_of

Place = tuple[str, int]  # position name and layer
FEW = 200
"""Probes that are fitted before processes have started."""


def probe_auc(
    model: str | Path | TransformerBridge,
    prompts: Sequence[Prompt],
    positions: int | Sequence[Position],
    *,
    layers: str | int | Sequence[int] = "all",
    act_name: str = "resid_post",
    n_tokens: int = 8,
    exact_answer: Any = "given",
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

    A prompt is correct when its greedy continuation begins with one of its answers, as in `known`,
    or when `judge`, `(prompt, text) -> bool`, says so. `positions` are what `per_position` takes; a
    name of several tokens stands for their mean. Give `n_tokens` as in `sweep`: positions are found
    in one token of greedy output fewer, and those from the end are then the same tokens. Give
    `exact_answer`, too, as there: a prompt answered wrong rarely mentions a given answer, and has
    `exact_answer_*` where another rule finds what it says instead. `exact_from` counts whose they
    are, and `attrs["knockgrid"]["exact_empty"]` the prompts that have none.

    The probe reads `act_name`. It is scikit-learn's `LogisticRegression` with its defaults, but for
    the solver, Newton's, as the default one stops short of the optimum there. `seeds` splits into
    `folds` parts are drawn (seeds 0, 1, ...); each part is scored by a probe fitted on the others,
    and no subject is both fitted and scored. Scores are pooled over folds.

    One row per seed (column `prompt`), position and layer. `auc` is the share of pairs of an
    incorrect and a correct prompt in which the incorrect one scores higher: 0.5 tells nothing,
    below 0.5 the probe is misled. `auc_shuffled` is the same with shuffled labels. `n_prompts` have
    the position, `n_incorrect` of them were answered wrong. A place where fewer subjects than folds
    were answered right, or wrong, is NA.

    Raises:
        InputError: no scikit-learn, bad input, a prompt without answers, or prompts that were all
            answered right or all wrong.

    Source: Orgad et al., arXiv 2410.02707, who score one split of 80 to 20.
    Limit: what a probe reads need not be used by the model (`readable_not_used`). Among relations
    of unequal difficulty, reading the relation is enough to beat 0.5. Which rule has found an exact
    answer may tell a wrong output from a right one, as those are of different words.
    """
    need_sklearn()
    model = load(model)
    check_counts(n_tokens=n_tokens, seeds=seeds)
    check_counts(least=2, folds=folds)
    columns = per_position(patch(act_name, "last", zero()), positions)
    rules = rules_as_data(exact_answer)
    ready, settings = checked(model, prompts, columns, layers, prepend_bos, n_tokens)
    exact = exact_answers(exact_answer, [one.prompt for one in ready])
    settings = replace(settings, exact=exact)
    check_answers(ready, judge)
    said = outputs(model, ready, max(n_tokens, answer_length(model.tokenizer, ready)))
    kept = {str(one.prompt.id): one.prompt for one in ready}
    wrong = {name: not judged(prompt, said[name], judge) for name, prompt in kept.items()}
    n_wrong = sum(wrong.values())
    if n_wrong in (0, len(wrong)):
        was, other = ("right", "wrong") if n_wrong == 0 else ("wrong", "right")
        raise InputError(
            f"every prompt was answered {was}, so there is nothing to detect; add prompts that "
            f"the model answers {other}, such as those of other relations"
        )
    metadata = {
        "statistics": {"auc": "AUC (incorrect = positive)"},
        "positive_class": "incorrect",
        "n_tokens": n_tokens,
        "exact_answer": rules,
        "n_correct": len(wrong) - n_wrong,
        "n_incorrect": n_wrong,
        "incorrect": [name for name, is_wrong in wrong.items() if is_wrong],
    }
    return probed(model, ready, settings, wrong, seeds, folds, metadata, progress)


def label_probe(
    model: str | Path | TransformerBridge,
    prompts: Sequence[Prompt],
    frame: pd.DataFrame,
    *,
    between: Sequence[str] = ("FA", "wrong"),
    positions: Sequence[Position] = ("last", "subject"),
    layers: str | int | Sequence[int] = "all",
    act_name: str = "resid_post",
    seeds: int = 5,
    folds: int = 5,
    prepend_bos: bool | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Detection AUROC: how well a probe on a representation tells one label from another.

    Example:
        >>> import knockgrid as kg
        >>> prompts = kg.facts("us_state_capital")[:10]
        >>> frame = kg.evidence.labels(kg.evidence.reliance("demo", prompts, progress=False), 0.3)
        >>> few = {"layers": [29], "seeds": 1, "folds": 2, "progress": False}
        >>> kg.evidence.label_probe("demo", prompts, frame, **few).position.tolist()
        ['last', 'subject']

    `between` names two of FA (both of its labels), FA-high, FA-low, wrong, AH and UH; the second is
    the positive class, as "incorrect" is in `probe_auc`, whose columns, options, folds and control
    these are. `frame` comes from `labels`.

    Raises:
        InputError: no scikit-learn, bad input, a frame without labels, or sides that share labels.

    Source: Cheang et al. 2025 (arXiv 2510.09033).

    Limit: where the sides have other relations, a probe that reads the relation does as well; give
    the prompts of `pair_prompts` pairs to compare within relations.
    """
    need_sklearn()
    check_sides(between)
    model = load(model)
    check_counts(seeds=seeds)
    check_counts(least=2, folds=folds)
    given = labels_of(prompts, frame)
    columns = per_position(patch(act_name, "last", zero()), positions)
    ready, settings = checked(model, prompts, columns, layers, prepend_bos)
    one, other = (SIDES[name] for name in between)
    positive = {name: label in other for name, label in given.items() if label in (*one, *other)}
    if not positive:
        raise InputError(f"no prompt is {between[0]!r} or {between[1]!r}, so nothing can be learnt")
    metadata = {
        "statistics": {"auc": f"AUC ({between[1]} = positive, {between[0]} = negative)"},
        "positive_class": between[1],
        "negative_class": between[0],
        "n_positive": sum(positive.values()),
        "n_negative": len(positive) - sum(positive.values()),
        "threshold": metadata_of(frame).get("threshold"),
        "versions": versions(),
    }
    kept = [one for one in ready if str(one.prompt.id) in positive]
    return probed(model, kept, settings, positive, seeds, folds, metadata, progress)


def check_answers(ready: Sequence[Prepared], judge: Judge | None = None) -> None:
    """Refuse prompts of which it cannot be said whether they were answered right."""
    for one in ready:
        if not one.prompt.answers and judge is None:
            raise InputError(
                f"prompt {one.prompt.id!r} has no answers, so it is neither right nor wrong; "
                "give Prompt(text, answers=[...]) or a judge"
            )


def probed(
    model: TransformerBridge,
    ready: Sequence[Prepared],
    settings: Settings,
    positive: Mapping[str, bool],
    seeds: int,
    folds: int,
    metadata: dict[str, Any],
    progress: bool,
) -> pd.DataFrame:
    """The table of probes that tell the prompts of the positive class from the others."""
    read: dict[str, dict[Place, np.ndarray]] = {}
    said: dict[str, Exact] = {}
    with bar(len(ready), " prompts", "read", progress) as done:
        for batch in batches(ready):
            for run in record_clean(model, batch, settings):
                read[str(run.prompt.id)] = dict(activations(run, settings))
                said[str(run.prompt.id)] = run.exact
            done.update(len(batch))
    acts = [read[str(one.prompt.id)] for one in ready]
    wrong = np.array([positive[str(one.prompt.id)] for one in ready], dtype=bool)
    groups = subject_groups([one.prompt for one in ready])
    columns = [one for one in settings.interventions if isinstance(one, Patch)]
    places = [(str(one.position), layer) for one in columns for layer in settings.layers]
    rows: dict[tuple[int, Place], dict[str, Any]] = {}
    whose = exact_counts(one.by for one in said.values())
    asked = [(place, seed) for place in places for seed in range(seeds)]
    with bar(len(asked), " probes", "fit", progress) as done:
        here = at_places(acts, places)
        found = fits(here, wrong, groups, folds, seeds, alone=len(asked) < FEW)
        for (place, seed), probe in zip(asked, found, strict=True):
            label = {"intervention": "probe", "position": place[0], "layer": place[1]}
            label |= {"exact_from": whose["exact_from"]} if is_exact(place[0]) else {}
            # a probe measures no token
            rows[seed, place] = {"prompt": f"seed {seed}", **label, "token": None, **probe}
            done.update()
    ordered = [rows[seed, place] for seed in range(seeds) for place in places]
    if settings.at_exact:
        metadata |= whose
    metadata["statistics"]["auc_shuffled"] = "AUC, labels shuffled"
    return build(
        ordered,
        {
            "act_name": columns[0].act_name,
            "layer_order": list(settings.layers),
            "position_order": [one.position for one in columns],
            "labels": {"probe": "Probe"},
            "seeds": list(range(seeds)),
            "folds": folds,
            "prepend_bos": settings.prepend_bos,
            "model": describe(model),
            **metadata,
        },
    )


def activations(run: Run, settings: Settings) -> Iterator[tuple[Place, np.ndarray]]:
    """The activation at every place that a run has, averaged over its tokens, `[d]` in float32."""
    for one in settings.interventions:
        if isinstance(one, Patch) and absent(run, one.pos) is None:
            pos = list(positions_in(run, one.pos))
            for layer in settings.layers:
                act = run.acts[one.act_name, layer][pos].float().mean(0)
                yield (str(one.position), layer), act.flatten().cpu().numpy()


def at_places(
    acts: Sequence[Mapping[Place, np.ndarray]], places: Sequence[Place]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For every place, which prompts have it, and their activations `[prompt, d]`."""
    for place in places:
        have = np.array([i for i, one in enumerate(acts) if place in one], dtype=int)
        yield have, narrowed(np.array([acts[i][place] for i in have]))
