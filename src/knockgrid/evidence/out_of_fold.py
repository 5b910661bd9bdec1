"""Out-of-fold probes: every prompt is scored by a probe that saw neither it nor its subject."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from knockgrid.errors import missing_extra
from knockgrid.prompts.prompt import Prompt

MAX_ITER = 1000  # scikit-learn's 100 do not always converge on a residual stream of unequal scales


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
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    return list(splitter.split(np.zeros(len(groups)), incorrect, groups))


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
    probe = LogisticRegression(max_iter=MAX_ITER)
    scores = cross_val_predict(probe, acts, incorrect, cv=parts, method="decision_function")
    return np.asarray(scores)


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
