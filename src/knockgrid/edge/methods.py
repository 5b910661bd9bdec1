"""methods: what a paper has to say about a run, in sentences, with the works to cite."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from knockgrid._clusters import clusters
from knockgrid._errors import InputError
from knockgrid._escape import latex
from knockgrid._parquet import read_table
from knockgrid._table import metadata_of
from knockgrid.edge.config import SweepConfig, config_of
from knockgrid.edge.manifest import read_manifest
from knockgrid.edge.plan import interventions_of
from knockgrid.edge.references import bibtex
from knockgrid.edge.run_folder import LABELS, RunFolder
from knockgrid.edge.store import is_whole, open_run
from knockgrid.interventions._knockout import Knockout
from knockgrid.interventions._patch import Patch

WINDOWS = {
    "only": "that layer alone",
    "all_but": "all layers but that one",
    "from": "that layer and all later ones",
    "up_to": "that layer and all earlier ones",
}
RULES = {
    "mean_fa": "the mean of the right answers",
    "median_fa": "the median of the right answers",
}
MODES = {
    "prompt_only": "edits touch prompt positions only; the context is the clean continuation",
    "persistent": "knockouts also bind every generated query, patches are not put again; the "
    "context is the clean continuation",
    "free_run": "edits persist and the edited model writes its own tokens",
}


class Text:
    """Sentences, and the works they cite in the order of their first mention."""

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self.keys: list[str] = []

    def say(self, sentence: str, *keys: str) -> None:
        """Add a sentence and what it cites."""
        self.keys += [key for key in keys if key not in self.keys]
        marks = f" \\citep{{{','.join(keys)}}}" if keys else ""
        self.sentences.append(f"{latex(sentence)}{marks}.")


def methods(folder: str | Path) -> str:
    """The methods paragraph of a run folder and the BibTeX entries it cites.

    Example:
        >>> methods("runs/nowhere")
        Traceback (most recent call last):
        ...
        knockgrid._errors.InputError: runs/nowhere holds no run (there is no manifest.json); ...

    Raises:
        InputError: a folder without a run, a damaged one, or one of which shards are missing.

    Limit: it tells what was computed; why these prompts and this model, only their user knows.
    """
    folder = Path(folder)
    run, manifest = RunFolder(folder), read_manifest(folder)
    if not (manifest.get("finished") and is_whole(run, manifest)):
        raise InputError(
            f"{folder} is not whole; the paragraph can be written when the run is finished and "
            "when all shards of the run are there: give the command that made it again"
        )
    table = open_run(folder)
    config = config_of(folder, manifest)
    text = Text()
    _model(text, manifest, config)
    _prompts(text, manifest, table)
    _labels(text, folder)
    rows = interventions_of(config)
    _interventions(text, rows, manifest)
    _others(text, {one.name for one in rows}, manifest)
    _measure(text, manifest)
    _statistics(text, table)
    _trust(text, manifest)
    return " ".join(text.sentences) + "\n\n" + bibtex(text.keys, manifest["versions"]) + "\n"


def _model(text: Text, manifest: Mapping[str, Any], config: SweepConfig) -> None:
    model, versions = manifest["model"], manifest["versions"]
    cited = ["smollm2"] if config.model == "demo" else []
    revision = f", revision {config.revision}" if config.revision else ""
    text.say(
        f"We edited {model['name']} ({model['architecture']}, {model['n_layers']} layers"
        f"{revision}, {model['dtype']}, {model['attn_implementation']} attention, weights digest "
        f"{model['weights_digest'][:12]}) on {_device(manifest, config)}",
        *cited,
    )
    text.say(
        f"The software was knockgrid {versions['knockgrid']} on TransformerLens "
        f"{versions['transformer-lens']}, Transformers {versions['transformers']} and PyTorch "
        f"{versions['torch']}",
        "knockgrid",
        "transformerlens",
    )


def _device(manifest: Mapping[str, Any], config: SweepConfig) -> str:
    hardware = manifest["hardware"]
    where = hardware["gpu"] if manifest["model"]["device"] != "cpu" else None
    spread = f", device map {config.device_map}" if config.device_map else ""
    return f"{where or hardware['machine'] + ' CPU'}{spread}"


def _prompts(text: Text, manifest: Mapping[str, Any], table: pd.DataFrame) -> None:
    sides = metadata_of(table)["prompts"]
    relations = list(dict.fromkeys(side["relation"] for side in sides if side["relation"]))
    over = f" over {_count(len(relations), 'relation')} ({', '.join(relations)})"
    groups = pd.Series([side["group"] for side in sides], dtype=object).dropna()
    parts = [f"{n} {name}" for name, n in groups.value_counts(sort=False).items()]
    text.say(
        f"The prompt set ({manifest['config']['prompts']}) holds {_count(len(sides), 'prompt')}"
        + (over if relations else "")
        + (f", of them {', '.join(parts)}" if parts else "")
        + _form(manifest["config"]["form"])
        + _selection(manifest)
        + f"; BOS was {'' if manifest['prepend_bos'] else 'not '}prepended"
    )
    rows: dict[tuple, list[str]] = {}
    for name, reasons in manifest["dropped"].items():
        rows.setdefault(tuple(sorted(reasons)), []).append(_row(manifest, name))
    for prompts, names in rows.items():
        text.say(f"{_count(len(prompts), 'prompt')} could not take part in {', '.join(names)}")


def _labels(text: Text, folder: Path) -> None:
    """Where the groups come from, if the run labelled its prompts."""
    if not (folder / LABELS).is_file():
        return
    told = metadata_of(read_table(folder / LABELS))
    rule = RULES.get(str(told["threshold_rule"]), "a number given")
    on = "paraphrases of the prompts" if told["label_with"] == "paraphrase" else "the same prompts"
    text.say(
        "Prompts were labelled by whether the greedy continuation begins with an answer, and by "
        "reliance, the JS divergence when no position after the subject can attend to it in any "
        f"layer, measured on {on}: above {told['threshold']:.4g} nats ({rule}) a right answer is "
        "FA-high and a wrong one AH, at or below it FA-low and UH",
        "cheang2025",
    )


def _statistics(text: Text, table: pd.DataFrame) -> None:
    """How intervals and tests of this table are made."""
    groups = clusters(table)
    if groups.too_few:
        text.say(f"With {groups.words} there is no interval and no test")
        return
    text.say(
        f"Bands are 95 % bootstrap-t intervals over {groups.words}, simultaneous over layers; "
        "differences were tested by flipping the signs of whole clusters and corrected over layers "
        "by the largest t",
        "cameron2008",
        "westfall1993",
    )


def _form(form: str) -> str:
    """In which form the prompts were put, where it is not their own."""
    if form == "plain":
        return ""
    where = "as the beginning of a chat model's own turn" if form == "chat" else f"behind {form!r}"
    return f"; the prompts stood {where}"


def _selection(manifest: Mapping[str, Any]) -> str:
    chosen = manifest.get("selection")
    if not chosen:
        return ""
    return (
        f"; of {chosen['considered']} prompts that were tried, the model's greedy continuation "
        f"begins with an answer for {chosen['known']}, of which {chosen['known_kept']} were kept"
        + (f", beside {chosen['unknown_kept']} of the others" if chosen["unknown_kept"] else "")
    )


def _interventions(text: Text, rows: Sequence[Any], manifest: Mapping[str, Any]) -> None:
    """One sentence for all rows that differ in their place only."""
    groups: dict[tuple, list[Any]] = {}
    for one in rows:
        groups.setdefault(_alike(one), []).append(one)
    for group in groups.values():
        one, window = group[0], _window(group[0].window)
        if isinstance(one, Knockout):
            where = [f"from {_place(each.to)} to {_place(each.src)}" for each in group]
            text.say(
                f"Attention was blocked in {_heads(one.heads)} at {window}, by setting the scores "
                "to the smallest number of their dtype before the softmax, which shares the weight "
                f"among the rest: {_listed(group, where, manifest)}",
                "geva2023",
            )
        elif isinstance(one, Patch):
            how, keys = _source(one.source.label, manifest)
            part = "" if one.alpha == 1 else f"{one.alpha:g} of the way from the clean value to "
            of = "" if one.heads is None else f" of {_heads(one.heads)}"
            where = [f"at {_place(each.at)}" for each in group]
            what = f"The activation {one.act_name}{of} was replaced at {window} by {part}{how}"
            if manifest["direction"] == "denoise":
                run = how.removeprefix("the activation of ")
                what = f"In {run}, the activation {one.act_name}{of} was restored at {window}"
            text.say(f"{what}: {_listed(group, where, manifest)}", *keys)
        else:
            text.say(f"The edit {one.kind} was made at {window}: {_listed(group, None, manifest)}")


def _others(text: Text, told: set[str], manifest: Mapping[str, Any]) -> None:
    """Rows that depend on the prompts: subjects exchanged for ones with the same answer."""
    names = [one["name"] for one in manifest["interventions"] if one["name"] not in told]
    if names:
        text.say(
            "The subject was exchanged for another one of the prompt set with the same answer, "
            f"relation, template and token length in {', '.join(_row(manifest, n) for n in names)}"
        )


def _alike(one: Any) -> tuple:
    source = None if one.source is None else one.source.label
    return (one.kind, one.window, source, one.heads, getattr(one, "alpha", None))


def _listed(group: Sequence[Any], where: Sequence[str] | None, manifest: Mapping[str, Any]) -> str:
    rows = [_row(manifest, one.name) for one in group]
    if where is None:
        return ", ".join(rows)
    return ", ".join(f"{place} in {row}" for place, row in zip(where, rows, strict=True))


def _source(label: str, manifest: Mapping[str, Any]) -> tuple[str, Sequence[str]]:
    """What a source puts in place of an activation, and who proposed it."""
    sigma = " and ".join(f"{v:.4g} over the {k} tokens" for k, v in manifest["sigma"].items())
    draws = _count(manifest["samples"], "draw")
    inner = label.removeprefix("corrupted_run(").removesuffix(")")
    if inner.startswith("noise(") and inner != label:
        return (
            f"the activation of a run with Gaussian noise on the embeddings, {inner}, in standard "
            f"deviations of the embedding activation ({sigma}), with {draws} (seed "
            f"{manifest['seed']})",
            ["meng2022"],
        )
    if inner.startswith("swap("):
        return (
            "the activation of a run over each prompt's swap partner, whose subject has the same "
            "tokens' places and another answer",
            ["zhang2023"],
        )
    plain = {"zero()": "zeros", "mean()": "its mean over the prompt set at the same position name"}
    return plain.get(label, f"the value of {label}"), []


def _measure(text: Text, manifest: Mapping[str, Any]) -> None:
    if manifest["direction"] == "denoise":
        text.say(
            "Restored are the values of the clean run (denoising), and divergences are those of "
            "the restored run from the clean one",
            "heimersheim2024",
        )
    n = manifest["n_tokens"]
    tokens = "the next token after the prompt"
    if n > 1:
        tokens = f"the first {n} tokens after the prompt ({MODES[manifest['mode']]})"
    layers = manifest["layer_order"]
    every = layers == list(range(manifest["model"]["n_layers"]))
    text.say(
        f"Effects are divergences between the distributions of {tokens} with and without the edit, "
        f"in {manifest['unit']} ({', '.join(manifest['metrics'])}; the Jensen-Shannon divergence "
        f"is js), at {'every layer' if every else 'layers ' + ', '.join(map(str, layers))}",
        "lin1991",
        "cheang2025",
    )


def _trust(text: Text, manifest: Mapping[str, Any]) -> None:
    receipt = manifest["receipt"]
    kinds = receipt["tried"][-1].get("kinds", {})
    apart = max((kind["max_difference"] for kind in kinds.values()), default=None)
    agree = "" if apart is None else f", which agreed with one full pass per cell to {apart:.1g}"
    least = min(receipt["maximal_effects"].values(), default=None)
    reach = "" if least is None else f" and maximal edits moved JS by {least:.2g} or more"
    text.say(
        f"Cells were carried out by the {receipt['executor']} executor{agree} nats of JS on trial "
        f"cells of this model{reach}"
        if agree
        else f"Cells were carried out by the {receipt['executor']} executor{reach}"
    )
    for line in _floor(manifest):
        text.say(line)
    text.say(
        f"The run is identified by config digest {manifest['config_digest']} (executor setting "
        f"{manifest['config']['executor']})"
    )


def _floor(manifest: Mapping[str, Any]) -> Iterator[str]:
    if "noise_floor" in manifest:
        yield (
            "The noise floor, the 99th percentile of JS under edits of one unit in the last place "
            "at the same sites, is marked in the figures"
        )


def _row(manifest: Mapping[str, Any], name: str) -> str:
    label = manifest["labels"].get(name, name)
    return f"row {name!r}" if label == name else f"row {name!r} ({label})"


def _place(at: Any) -> str:
    return repr(at) if isinstance(at, str) else str(at)


def _heads(heads: Sequence[int] | None) -> str:
    return "all heads" if heads is None else f"heads {', '.join(map(str, heads))}"


def _window(window: int | str) -> str:
    if isinstance(window, str):
        return WINDOWS[window]
    if window == 1:
        return "one layer"
    return f"a window of {window} layers centred on the layer and clipped at the ends"


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"
