"""Spec: everything that decides a sweep, as one frozen value.

Its fields, defaults and help texts are the only list of them: `sweep(**options)`, the shell's
flags, settings files, manifests, digests, dry runs and Ray all read this class.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from knockgrid.display.drawers import exported
from knockgrid.errors import InputError, as_int, shown, unknown

METRICS = ("js", "kl", "kl_reverse", "tv", "logp_clean", "rank_clean", "logp_answer", "rank_answer")
BOUNDS = ("max_rows", "max_memory", "threads")
"""Fields that bound memory and threads, and change results by rounding only: a run that began on a
large machine may continue on a small one."""
WHERE = ("device", "device_map")
"""Fields that say where a run is computed, not what; every shard records its hardware."""
ROWS = ("subject", "attention", "last")
EXACT_ANSWERS = ("given", "relation", "model")
ENGINES = ("single", "ray")


def option(default: Any, kind: Any, help: str, *, flag: bool = False, least: int | None = None):
    """A field: its default, the type of its plain value, its help, and whether it is a flag."""
    about = {"kind": kind, "help": help, "flag": flag, "least": least}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=about)
    return field(default=default, metadata=about)


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Everything that decides what a sweep computes, and where.

    Example:
        >>> spec = Spec(layers=[0, 5])
        >>> spec.digest() == Spec(layers=[0, 5], threads=1).digest()
        True
        >>> spec.plain()["layers"], spec.mode
        ([0, 5], 'prompt_only')

    A field holds plain data, as in a settings file, or from Python an object: a model, prompts,
    interventions, a measure, an executor. `plain` gives the data form of either.
    """

    model: Any = option(
        "demo", str, "a loaded model, or what to load: demo, a folder, a hub name", flag=True
    )
    revision: Any = option(None, str | None, "the model's revision on the hub")
    dtype: Any = option(
        "float32",
        Literal["float32", "float64", "bfloat16", "float16"],
        "of the model that is loaded",
        flag=True,
    )
    device: Any = option(None, str | None, "cpu, cuda, cuda:1 or mps", flag=True)
    device_map: Any = option(None, str | None, "auto, balanced, …: spread the model over devices")
    prompts: Any = option(
        "facts",
        str | tuple[dict[str, Any], ...],
        "Prompt objects, rows as of a file, or where they come from: facts, a file (JSONL, JSON, "
        "CSV, TSV, Parquet), or hf:name:split",
        flag=True,
    )
    columns: Any = option({}, dict[str, str], "what the file's columns are: attribute=answers")
    template: Any = option(
        None, str | None, "one for all prompts of the file, {} or [X] for the subject", flag=True
    )
    form: Any = option("plain", str, "plain, chat, or a text that ends in {}", flag=True)
    relations: Any = option(None, tuple[str, ...] | None, "keep these relations only")
    known: Any = option(False, bool, "keep the prompts that the model answers right")
    limit: Any = option(None, int | None, "at most this many prompts", flag=True, least=1)
    unknown: Any = option(0, int, "add this many prompts that the model answers wrong", least=0)
    labels: Any = option(False, bool, "group prompts by the labels FA, AH and UH")
    label_form: Any = option(None, str | None, "label the prompts in this form instead")
    interventions: Any = option(
        ({"kind": "information_flow"},),
        tuple[str | dict[str, Any], ...],
        "what to block: interventions, or their data, such as {kind: knockout, window: 5}",
    )
    contrasts: Any = option(False, bool, "also sweep the rows at other tokens", flag=True)
    nulls: Any = option(False, bool, "also sweep nulls of the rows", flag=True)
    noise_floor: Any = option(
        True, bool, "measure the noise floor of a run folder, which figures mark", flag=True
    )
    layers: Any = option(
        "all",
        Literal["all"] | tuple[int, ...],
        "all, or layers in the order in which figures show them",
    )
    n_tokens: Any = option(
        1,
        int,
        "tokens to measure; token 0 follows the prompt, later ones follow the clean greedy "
        "continuation; of a prompt with a continuation of its own, that is measured",
        flag=True,
        least=1,
    )
    measure: Any = option(
        None,
        str | tuple[str, ...] | None,
        "measure the whole text instead, from the first edited token on: all (a row for every "
        "span of a prompt, the mean over its tokens), names of spans, or tokens (a row for each)",
    )
    exact_answer: Any = option(
        "given",
        Literal["given", "relation", "model"] | tuple[Literal["given", "relation", "model"], ...],
        "what exact_answer_* lie at: given, a mention of the prompt's answers; relation, the first "
        "mention of any answer of its relation; model, what the model itself names when asked; or "
        "a function (prompt, output) -> a part of it or None; of several, the first that finds one",
    )
    mode: Any = option(
        "prompt_only",
        Literal["prompt_only", "persistent", "free_run"],
        "prompt_only edits prompt positions; persistent also binds every later query (patches are "
        "applied once); in free_run, which is persistent, the edited model writes its own tokens",
        flag=True,
    )
    sampled_runs: Any = option(
        None,
        int | None,
        "in free_run, the texts that the clean run and every cell sample at the temperature, to "
        "count those that give the answer; by default each writes one text greedily",
        least=1,
    )
    metrics: Any = option(
        METRICS, tuple[str, ...], "measures by name or as objects; see knockgrid.divergences"
    )
    unit: Any = option("nats", Literal["nats", "bits"], "nats or bits")
    temperature: Any = option(
        1.0,
        float,
        "what the logits of both runs are divided by before they are measured",
        flag=True,
    )
    samples: Any = option(
        1, int, "draws of a random source, over which divergences are averaged", least=1
    )
    direction: Any = option(
        "noising",
        Literal["noising", "denoising"],
        "noising edits the clean run, denoising puts clean values into the corrupted run; both "
        "measure divergences from the clean run",
    )
    executor: Any = option(
        "auto",
        str,
        "by name, or as an object; auto takes the fastest that agrees with the reference on this "
        "model",
    )
    prepend_bos: Any = option(
        None, bool | None, "whether BOS comes first; by default as the model is configured"
    )
    seed: Any = option(
        0, int, "of all draws; they depend on it, the prompt, the source and the sample", flag=True
    )
    batch: Any = option(
        32, int, "prompts of equal length that are computed together, at most", least=1
    )
    top: Any = option(
        10,
        int,
        "most probable tokens that a run folder keeps of every row, for its report",
        least=0,
    )
    max_rows: Any = option(None, int | None, "rows of one pass, at most; halved where memory ends")
    max_memory: Any = option(
        None, int | str | None, "memory beside the weights, at most: 4GB, 800MiB, or bytes"
    )
    threads: Any = option(
        None, int | None, "CPU threads; by default one or all, whichever is faster", least=1
    )

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, Iterator):
                value = list(value)
            object.__setattr__(self, one.name, as_int(value) if _counts(one) else value)
        if type(self.seed) is not int:
            raise InputError(f"seed is {self.seed!r}; give a whole number")
        if type(self.prepend_bos).__name__ in ("bool_", "bool"):  # NumPy's have a repr of their own
            object.__setattr__(self, "prepend_bos", bool(self.prepend_bos))
        elif self.prepend_bos is not None:  # "no" would count as True
            raise InputError(f"prepend_bos is {self.prepend_bos!r}; give True, False or None")

    def but(self, **changes: Any) -> Spec:
        """The same with some fields changed."""
        for name in changes:
            if name not in FIELDS:
                raise unknown("option", name, FIELDS)
        return replace(self, **changes)

    def plain(self) -> dict[str, Any]:
        """All fields as JSON holds them: objects as data, prompts by their digest.

        A model that `load` made is named as it was loaded; any other object is None.
        """
        from knockgrid.host.bridge import loaded_from

        values = {name: getattr(self, name) for name in FIELDS}
        values["exact_answer"] = rules_as_data(self.exact_answer)
        values |= {} if isinstance(self.model, str) else loaded_from(self.model)
        return {name: _plain(value) for name, value in values.items()}

    def digest(self) -> str:
        """A digest of the fields that decide, in their canonical JSON form."""
        return digest(self.plain())


FIELDS: dict[str, Field] = {one.name: one for one in fields(Spec)}
OPTIONS = tuple(FIELDS)[list(FIELDS).index("noise_floor") :]
"""The fields that `sweep` takes as options; model, prompts and interventions are its arguments."""
OF_A_FOLDER = ("noise_floor", "top")
"""Options of a sweep into a run folder only."""


def _counts(one: Field) -> bool:
    return one.metadata["kind"] in (int, int | None, int | str | None)


def digest(plain: Mapping[str, Any]) -> str:
    """A digest of a spec in its plain form."""
    deciding = {name: value for name, value in plain.items() if name not in (*BOUNDS, *WHERE)}
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    """A field's value as JSON holds it."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, Path):
        return str(value)
    from knockgrid.divergences.divergence import Divergence
    from knockgrid.edits.data import as_data, digest_of
    from knockgrid.edits.intervention import Intervention
    from knockgrid.prompts.data import prompt_as_data
    from knockgrid.prompts.prompt import Prompt
    from knockgrid.table.measures import MEASURES

    values = list(value) if isinstance(value, Iterable) and not isinstance(value, Prompt) else None
    if isinstance(value, Divergence) and MEASURES.get(value.name) != value.facts:
        return {"name": value.name, "digest": digest_of(value)}  # a measure of the user's own
    if values is None:
        return as_data(value) if isinstance(value, Intervention) else getattr(value, "name", None)
    if values and all(isinstance(one, Prompt) for one in values):
        lines = [prompt_as_data(one) for one in values]
        return {"prompts": len(lines), "digest": digest({"lines": lines})}
    return [_plain(one) for one in values]


def name_of(rule: Any) -> str:
    """What tables call a rule for exact answers: its name, or that of its function."""
    return rule if isinstance(rule, str) else getattr(rule, "__name__", type(rule).__name__)


def rules_as_data(given: Any) -> Any:
    """Rules for exact answers as JSON holds them: a function by its name and digest."""
    from knockgrid.edits.data import digest_of

    if isinstance(given, str | Mapping):
        return given
    if not isinstance(given, Iterable):
        return {"name": name_of(given), "digest": digest_of(given)}
    return [rules_as_data(one) for one in given]


def allowed(name: str) -> tuple[str, ...]:
    """The values of a field that takes only some, or an empty tuple."""
    if name == "executor":
        return ("auto", *(one for one in exported("engine.executors") if one != "free_run"))
    found = getattr(FIELDS[name].metadata["kind"], "__args__", ())
    return found if all(isinstance(one, str) for one in found) else ()


def rows_as_data(
    rows: Sequence[str] = ROWS,
    sources: Sequence[str] = ("noise",),
    windows: Sequence[int | str] = (5,),
    act_name: str = "resid_post",
) -> tuple[dict[str, Any], ...]:
    """The figure's rows as data: subject and last once per source, attention once per window.

    With one source and one window they have the plain names subject, attention and last.
    """
    made: list[dict[str, Any]] = []
    for row in rows:
        if row not in ROWS:
            raise unknown("row", row, ROWS)
        if row == "attention":
            for window in windows:
                more = f" w{window}" * (len(windows) > 1)
                names = {"name": f"attention{more}", "label": f"Attn.{more}"}
                made.append({"kind": "knockout", "window": window, **names})
            continue
        for source in sources:
            name = f"{row} {source}" if len(sources) > 1 else row
            patch = {"kind": "patch", "act_name": act_name, "pos": row, "source": _source(source)}
            made.append({**patch, "name": name, "label": {"subject": "Subj."}.get(row, "Last.")})
    return tuple(made)


def _source(name: str) -> dict[str, Any]:
    kind, _, level = name.partition(":")
    if kind == "noise":
        try:
            by = {"kind": "noise", **({"k": float(level)} if level else {})}
        except ValueError:
            raise InputError(
                f"source {shown(name)} has no number of standard deviations; write noise:3"
            ) from None
        return {"kind": "corrupted_run", "by": by}
    if level or kind not in exported("sources"):
        raise unknown("source", name, ("noise:K", *exported("sources")))
    return {"kind": "corrupted_run", "by": {"kind": "swap"}} if kind == "swap" else {"kind": kind}
