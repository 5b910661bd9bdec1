"""Out-of-fold probes: every prompt is scored by a probe that saw neither it nor its subject."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from knockgrid.errors import missing_extra
from knockgrid.prompts.prompt import Prompt

MAX_ITER = 1000
DECIMALS = 6
"""Of a score: what the rounding of float32 activations tells apart is a tie."""


def need_sklearn() -> None:
    """Refuse to go on without scikit-learn, before anything is computed."""
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise missing_extra("a probe", "scikit-learn", "probes") from error


def subject_groups(prompts: Sequence[Prompt]) -> np.ndarray:
    """A number per prompt `[prompt]`, equal where the subject's text is, in any case.

    A prompt without a subject is a group of its own.
    """
    subjects = [one.span_text("subject") for one in prompts]
    keys = [
        f"id {one.id}" if subject is None else f"subject {subject.strip().casefold()}"
        for one, subject in zip(prompts, subjects, strict=True)
    ]
    return pd.factorize(np.array(keys, dtype=object))[0]


def too_few(incorrect: np.ndarray, groups: np.ndarray, folds: int) -> str | None:
    """Why `[prompt]` labels cannot be split into folds, each with a subject of each class."""
    for label, name in ((True, "incorrect"), (False, "correct")):
        found = len(set(groups[incorrect == label].tolist()))
        if found < folds:
            return f"{found} subjects with {name} answers, fewer than {folds} folds"
    return None


def split(
    incorrect: np.ndarray, groups: np.ndarray, folds: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Indices to fit on and to score, per fold; no group is in both."""
    labels = tuple(np.asarray(incorrect, dtype=bool).tolist())
    return list(_split(labels, tuple(groups.tolist()), folds, seed))


@lru_cache(maxsize=64)
def _split(
    incorrect: tuple[bool, ...], groups: tuple[int, ...], folds: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """As `split`; every layer has the same, and drawing it takes as long as to fit some probes."""
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    return list(splitter.split(np.zeros(len(groups)), incorrect, groups))


def narrowed(acts: np.ndarray) -> np.ndarray:
    """The same activations in as many dimensions as there are prompts, if those are fewer.

    All lie in the space that they span, and the distances in it stay, so a probe with an L2 penalty
    is the same one, and its fit takes a fraction of the time.
    """
    acts = acts.astype(np.float64)
    if acts.ndim < 2 or len(acts) >= acts.shape[1]:
        return acts
    distinct, which = np.unique(acts, axis=0, return_inverse=True)  # equal ones stay equal
    u, s, _ = np.linalg.svd(distinct, full_matrices=False)
    return (u * s)[which.reshape(-1)]


def out_of_fold(
    acts: np.ndarray, incorrect: np.ndarray, groups: np.ndarray, folds: int, seed: int
) -> np.ndarray | None:
    """Decision scores `[prompt]` for "incorrect" from activations `[prompt, d]`, pooled over folds.

    None where a fold would have to be learnt from one class.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    parts = split(incorrect, groups, folds, seed)
    if any(len(set(incorrect[fit].tolist())) < 2 for fit, _ in parts):
        return None
    # on a residual stream of unequal scales the default, L-BFGS, stops far from the optimum
    probe = LogisticRegression(solver="newton-cholesky", max_iter=MAX_ITER)
    with warnings.catch_warnings():
        # where nothing can be learnt no step is better than none, and L-BFGS says the same
        warnings.filterwarnings("ignore", "Line search of Newton solver")
        scores = cross_val_predict(probe, acts, incorrect, cv=parts, method="decision_function")
    return np.asarray(scores).round(DECIMALS)


def auc_and_control(
    acts: np.ndarray, incorrect: np.ndarray, groups: np.ndarray, folds: int, seed: int
) -> dict[str, float] | str:
    """The areas under the ROC curve of a probe and of one with shuffled labels, or why not."""
    from sklearn.metrics import roc_auc_score

    if (reason := too_few(incorrect, groups, folds)) is not None:
        return reason
    found = {}
    control = np.random.default_rng(seed).permutation(incorrect)
    for name, labels in (("auc", incorrect), ("auc_shuffled", control)):
        scores = out_of_fold(acts, labels, groups, folds, seed)
        if scores is None:
            return "a fold would be learnt from one class"
        found[name] = float(roc_auc_score(labels, scores))
    return found


def probe_at(
    acts: np.ndarray, wrong: np.ndarray, groups: np.ndarray, folds: int, seed: int
) -> dict[str, Any]:
    """The AUCs at one place over the prompts that have it, or the status that says why not."""
    from threadpoolctl import threadpool_limits

    counts = {"n_prompts": len(wrong), "n_incorrect": int(wrong.sum())}
    with threadpool_limits(1):  # small matrices only wait for threads
        found = auc_and_control(acts, wrong, groups, folds, seed)
    if isinstance(found, str):
        return {"auc": np.nan, "auc_shuffled": np.nan, **counts, "status": f"NA: {found}"}
    return {**found, **counts}


def fits(
    at_places: Iterable[tuple[np.ndarray, np.ndarray]],
    wrong: np.ndarray,
    groups: np.ndarray,
    folds: int,
    seeds: int,
    alone: bool,
) -> Iterator[dict[str, Any]]:
    """The probes of all places and seeds in their order, by as many processes as there are cores.

    `at_places` are the prompts that have a place, and their activations. A fit is mostly Python,
    which threads would take in turns.
    """
    from joblib import Parallel, delayed

    jobs = (
        delayed(probe_at)(acts, wrong[have], groups[have], folds, seed)
        for have, acts in at_places
        for seed in range(seeds)
    )
    pool: Any = Parallel(n_jobs=1 if alone else -1, return_as="generator")
    yield from pool(jobs)
