"""Which prompts belong together: the clusters that intervals and tests resample."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from knockgrid.errors import InputError, some_of
from knockgrid.table.table import metadata_of

FEWEST = 6  # with 5 clusters a sign-flip test cannot go below p = 0.06
By = str | Sequence[str] | Mapping[str, object]


@dataclass(frozen=True, eq=False)
class Clusters:
    """A label per prompt in each of one or two dimensions, and what a cluster is in words."""

    prompts: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]]
    words: str

    @property
    def counts(self) -> tuple[int, ...]:
        """The number of clusters in each dimension."""
        return tuple(len(set(one)) for one in self.labels.values())

    @property
    def too_few(self) -> bool:
        """Whether there are too few clusters for an interval."""
        return min(self.counts) < FEWEST

    def codes(self) -> list[np.ndarray]:
        """One number per prompt `[prompt]` in each dimension, equal where the label is."""
        return [pd.factorize(np.array(one, dtype=object))[0] for one in self.labels.values()]


def clusters(table: pd.DataFrame, by: By = "auto") -> Clusters:
    """The clusters that the prompts of a table fall into.

    Example:
        >>> from knockgrid.table.table import build
        >>> rows = [{"prompt": p, "intervention": "last", "layer": 0, "js": 0.1} for p in "abc"]
        >>> sides = [{"id": p, "relation": r} for p, r in zip("abc", ["x", "x", "y"])]
        >>> clusters(build(rows, {"prompts": sides})).words, clusters(build(rows, {})).words
        ('2 relations', '3 prompts')

    `by="auto"` takes the relation where the prompts have two or more of them, crossed with the
    subject where a subject comes up in several relations. Within a single relation the subject is
    the cluster, or the prompt where no subject comes twice: such an interval speaks of other
    subjects of that relation, not of other relations. `by` may also be "relation", "subject",
    "prompt", two of them as a pair, or a mapping from prompt id to label. Subjects are compared
    without case. Under "auto" the prompts without a relation form one cluster together.

    Raises:
        InputError: an unknown `by`, or prompts that lack the label that was asked for.
    """
    prompts = tuple(map(str, dict.fromkeys(table["prompt"])))
    if isinstance(by, Mapping):
        return _labelled(prompts, {"cluster": [by.get(p) for p in prompts]})
    relation = _of_prompts(table, prompts, "relation")
    told = _of_prompts(table, prompts, "subject")
    subject = [None if one is None else str(one).strip().casefold() for one in told]
    if by == "auto":
        return _automatic(prompts, relation, subject)
    names = (by,) if isinstance(by, str) else tuple(by)
    known = {"relation": relation, "subject": subject, "prompt": list(prompts)}
    if not 1 <= len(set(names)) == len(names) <= 2 or not set(names) <= set(known):
        raise InputError(
            f"by={by!r} names no clusters; give 'auto', 'relation', 'subject', 'prompt', a pair "
            "such as ('relation', 'subject'), or a mapping from prompt id to label"
        )
    return _labelled(prompts, {name: known[name] for name in names})


def _of_prompts(table: pd.DataFrame, prompts: tuple[str, ...], name: str) -> list:
    """A label of every prompt: that of its first row, else that of its side entry, else None."""
    sides = {str(one["id"]): one for one in metadata_of(table).get("prompts", []) if "id" in one}
    found = {prompt: sides.get(prompt, {}).get(name) for prompt in prompts}
    if name in table:
        told = table[["prompt", name]].dropna().drop_duplicates("prompt").astype(str)
        found |= dict(zip(told["prompt"], told[name], strict=True))
    return list(found.values())


def _automatic(prompts: tuple[str, ...], relation: list, subject: list) -> Clusters:
    whole = [p if s is None else f"subject {s}" for p, s in zip(prompts, subject, strict=True)]
    related = bool(relation) and relation[0] is not None
    if len(set(relation)) > 1:
        filled = ["(no relation)" if one is None else one for one in relation]
        pairs = set(zip(filled, whole, strict=True))
        crossed = max(Counter(who for _, who in pairs).values()) > 1
        made = _made(prompts, {"relation": filled} | ({"subject": whole} if crossed else {}))
        if None not in relation:
            return made
        _, *more = made.words.split(" × ")
        few = f"{counted(made.counts[0] - 1, 'relation')} + the prompts without one"
        return Clusters(prompts, made.labels, " × ".join([few, *more]))
    twice = len(set(whole)) < len(prompts)
    sampled = related and None not in subject  # the same clusters, by the name of what they sample
    made = _made(prompts, {"subject" if twice or sampled else "prompt": whole})
    return Clusters(prompts, made.labels, made.words + " within one relation" * related)


def _made(prompts: tuple[str, ...], labels: Mapping[str, Sequence]) -> Clusters:
    kept = {name: tuple(map(str, one)) for name, one in labels.items()}
    words = [counted(len(set(one)), name) for name, one in kept.items()]
    return Clusters(prompts, kept, " × ".join(words))


def _labelled(prompts: tuple[str, ...], labels: Mapping[str, list]) -> Clusters:
    for name, given in labels.items():
        lacking = [p for p, label in zip(prompts, given, strict=True) if label is None]
        if lacking:
            what = "cluster in the mapping" if name == "cluster" else name
            raise InputError(
                f"{len(lacking)} of {len(prompts)} prompts have no {what} ({some_of(lacking)}); "
                "give them one, or take by='prompt'"
            )
    return _made(prompts, labels)


def counted(n: int, name: str) -> str:
    """A number of clusters in words."""
    return f"{n} {name}{'s' * (n != 1)}"


def fewest(groups: Clusters) -> str:
    """The dimension with the fewest clusters, which decides how much is known."""
    return min(groups.labels, key=lambda name: len(set(groups.labels[name])))
