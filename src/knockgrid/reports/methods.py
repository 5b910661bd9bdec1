"""methods: what a paper has to say about a run, in sentences, with the works to cite."""

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from knockgrid.display.escape import latex
from knockgrid.errors import InputError, some_of
from knockgrid.reports.methods_edits import Text, row_of, say_edits, say_partners
from knockgrid.runs.manifest import read_manifest
from knockgrid.runs.run_folder import LABELS, RunFolder
from knockgrid.runs.store import is_whole, open_run
from knockgrid.runs.study import spec_of
from knockgrid.spec import Spec
from knockgrid.stats.clusters import FEWEST, clusters, counted, fewest
from knockgrid.table.measures import APART, MEASURES, measure_of
from knockgrid.table.parquet import read_table
from knockgrid.table.table import metadata_of

RULES = {
    "mean_fa": "the mean of the right answers",
    "median_fa": "the median of the right answers",
}
MODES = {
    "prompt_only": "edits touch prompt positions only; the context is the clean continuation",
    "persistent": "knockouts also bind every generated query, patches are applied once; the "
    "context is the clean continuation",
    "free_run": "edits persist and the edited model writes its own tokens",
}
EXACT = {
    "given": "the first mention of one of the prompt's answers",
    "relation": "the first mention of an answer of the prompt's relation",
    "model": "what the model itself named when it was shown the output after three examples, "
    "if the output holds that",
}
CITED = {
    "js": ("lin1991",),
    "logit_diff": ("wang2022",),
    "recovered": ("wang2022", "zhang2023"),
    "p_change": ("zhang2024",),
}
"""The works that measures come from."""
SOFTWARE = {"knockgrid": "knockgrid", "transformerlens": "transformer-lens"}


def methods(folder: str | Path) -> str:
    """The methods paragraph of a run folder and the BibTeX entries it cites.

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
    if table.empty:
        raise InputError(f"{folder} has no rows, as every prompt failed; there is nothing to say")
    spec = spec_of(folder, manifest)
    text = Text()
    _model(text, manifest, spec)
    _prompts(text, manifest, table)
    _missing(text, manifest, table)
    _labels(text, folder)
    say_edits(text, manifest)
    say_partners(text, manifest)
    _measure(text, manifest, table)
    _statistics(text, table)
    _trust(text, manifest)
    _elsewhere(text, run, manifest)
    return " ".join(text.sentences) + "\n\n" + bibtex(text.keys, manifest["versions"]) + "\n"


def bibtex(keys: Sequence[str], versions: Mapping[str, str]) -> str:
    """The entries of some works, software with the version that was used."""
    every = entries()
    return "\n\n".join(
        every[key].replace("VERSION", latex(versions.get(SOFTWARE.get(key, ""), "unknown")))
        for key in keys
    )


def entries() -> dict[str, str]:
    """Every work of `references.bib` by its key."""
    text = files("knockgrid.reports").joinpath("references.bib").read_text("utf-8")
    found = [entry.strip() for entry in re.split(r"^(?=@)", text, flags=re.MULTILINE) if entry]
    return {entry[entry.index("{") + 1 : entry.index(",")]: entry for entry in found}


def _model(text: Text, manifest: Mapping[str, Any], spec: Spec) -> None:
    model, versions = manifest["model"], manifest["versions"]
    revision = f", revision {spec.revision}" if spec.revision else ""
    hardware = dict(manifest["hardware"])
    if model["device"] == "cpu":
        hardware["gpu"] = None
    spread = f", device map {spec.device_map}" if spec.device_map else ""
    text.say(
        f"We edited {model['name']} ({model['architecture']}, {model['n_layers']} layers"
        f"{revision}, {model['dtype']}, {model['attn_implementation']} attention, weights digest "
        f"{model['weights_digest'][:12]}) on {_machine(hardware)}{spread}",
        *(["smollm2"] if spec.model == "demo" else []),
    )
    text.say(
        f"The software was knockgrid {versions['knockgrid']} on TransformerLens "
        f"{versions['transformer-lens']}, Transformers {versions['transformers']} and PyTorch "
        f"{versions['torch']}",
        "knockgrid",
        "transformerlens",
    )


def _machine(hardware: Mapping[str, Any]) -> str:
    return hardware["gpu"] or f"{hardware['machine']} CPU"


def _prompts(text: Text, manifest: Mapping[str, Any], table: pd.DataFrame) -> None:
    sides = metadata_of(table)["prompts"]
    prompts, form = manifest["config"]["prompts"], manifest["config"]["form"]
    origin = prompts if isinstance(prompts, str) else f"given in Python, digest {prompts['digest']}"
    said = f"The prompt set ({origin}) holds {counted(len(sides), 'prompt')}"
    relations = list(dict.fromkeys(side["relation"] for side in sides if side["relation"]))
    if relations:
        without = sum(not side["relation"] for side in sides)
        none = f"; {counted(without, 'prompt')} without one" if without else ""
        said += f" over {counted(len(relations), 'relation')} ({', '.join(relations)}{none})"
    groups = pd.Series([side["group"] for side in sides], dtype=object).dropna()
    if len(groups):
        parts = [f"{n} {name}" for name, n in groups.value_counts(sort=False).items()]
        said += f", of them {', '.join(parts)}"
    if form == "chat":
        said += "; the prompts began a chat model's own turn"
    elif form != "plain":
        said += f"; the prompts were preceded by {form!r}"
    said += _selection(manifest.get("selection"))
    text.say(f"{said}; BOS was {'' if manifest['prepend_bos'] else 'not '}prepended")


def _selection(chosen: Mapping[str, Any] | None) -> str:
    """Which of the prompts that were tried are in the run."""
    if not chosen:
        return ""
    said = (
        f"; of {chosen['considered']} prompts that were tried, the model's greedy continuation "
        f"begins with an answer for {chosen['known']}, of which {chosen['known_kept']} were kept"
    )
    if chosen["unknown_kept"]:
        said += f", beside {chosen['unknown_kept']} of the others"
    without = chosen.get("without_answers")
    if without:
        was = "was" if without == 1 else "were"
        said += f", and {counted(without, 'prompt')} without answers {was} left out"
    return said


def _missing(text: Text, manifest: Mapping[str, Any], table: pd.DataFrame) -> None:
    """Prompts and values that are not there."""
    failed = len(manifest["failed"])
    if failed:
        text.say(f"{counted(failed, 'further prompt')} failed with an error and enter nothing")
    rows: dict[tuple, list[str]] = {}
    for name, reasons in manifest["dropped"].items():
        if reasons:
            rows.setdefault(tuple(sorted(reasons)), []).append(row_of(manifest, name))
    for prompts, names in rows.items():
        text.say(f"{counted(len(prompts), 'prompt')} could not take part in {', '.join(names)}")
    gone = table.loc[table["status"] != "ok", "status"].str.removeprefix("NA: ")
    if len(gone):
        why = some_of([f"{n}: {why}" for why, n in gone.value_counts().items()], "; ")
        text.say(f"{len(gone)} of {len(table)} rows of the table have no value ({why})")


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
    name = fewest(groups)
    label = dict(zip(groups.prompts, groups.labels[name], strict=True))
    valued = table[table["status"] == "ok"].groupby("intervention")["prompt"]
    least = int(valued.agg(lambda some: len({label[p] for p in some})).min())
    fewer = ""
    if least < min(groups.counts):
        end = f"; below {FEWEST} there is no interval" if least < FEWEST else ""
        fewer = f" (in rows that lack prompts, down to {counted(least, name)}{end})"
    text.say(
        f"Bands are 95 % bootstrap-t intervals over {groups.words}{fewer}, simultaneous over "
        "layers; differences were tested by flipping the signs of whole clusters and corrected "
        "over layers by the largest t",
        "cameron2008",
        "westfall1993",
    )


def _measure(text: Text, manifest: Mapping[str, Any], table: pd.DataFrame) -> None:
    if manifest["direction"] == "denoising":
        text.say(
            "Restored are the values of the clean run (denoising), and divergences are those of "
            "the restored run from the clean one",
            "heimersheim2024",
        )
    n = manifest["n_tokens"]
    tokens = "the next token after the prompt"
    sides = metadata_of(table)["prompts"]
    continued = sum(side.get("continuation") is not None for side in sides)
    if continued:
        whose = "each prompt" if continued == len(sides) else f"{continued} prompts"
        tokens = f"the tokens of the continuation that {whose} was given"
    elif n > 1:
        tokens = f"the first {n} tokens after the prompt ({MODES[manifest['mode']]})"
    if (measure := manifest.get("measure")) is not None:
        tokens = "what follows each token of the text"
        if measure != "tokens":
            tokens += ", averaged over the tokens of each measured span"
    layers = manifest["layer_order"]
    every = layers == list(range(manifest["model"]["n_layers"]))
    names = manifest["metrics"]
    text.say(
        f"Effects were measured on the distributions of {tokens} with and without the edit, at "
        f"{'every layer' if every else 'layers ' + ', '.join(map(str, layers))}: "
        + "; ".join(_measures(table, names, manifest["unit"])),
        *(work for name in names for work in CITED.get(name, ())),
        "cheang2025",
    )
    if manifest.get("measure") not in (None, "tokens"):
        text.say(
            "A logarithmic mean over a span is that of log(x + 1e-9); tokens before the first "
            "edited one are unchanged and count as 0",
            "bogdan2025",
        )
    if (runs := manifest.get("sampled_runs")) is not None:
        text.say(
            f"The clean run and every cell wrote {counted(runs, 'text')}, sampled by the same "
            f"random numbers (seed {manifest['seed']}); shares of texts that give the answer, or "
            "flip from giving it to not or back, have Wilson intervals of 95 %, and divergences "
            "are means over texts"
        )
    if (temperature := manifest.get("temperature", 1)) != 1:
        text.say(f"Both distributions were taken at a temperature of {temperature:g}")
    _needed(text, table, names)
    _exact(text, table)
    if table["samples"].max() > 1 and manifest.get("sampled_runs") is None:
        text.say(f"Values of random edits are means over {table['samples'].max()} draws")


def _needed(text: Text, table: pd.DataFrame, names: Sequence[str]) -> None:
    """Which tokens and runs measures read beside the two distributions, and how many have them."""
    sides = metadata_of(table)["prompts"]

    def those(need: str, field: str) -> tuple[str, str]:
        asking = [name for name in names if need in measure_of(table, name).needs]
        n = sum(bool(side.get(field)) for side in sides)
        have = f"{n} of {counted(len(sides), 'prompt')} {'has' if n == 1 else 'have'}"
        return ", ".join(asking), have

    of_answer, have = those("answer", "answers")
    if of_answer:
        said = f"Measures of the answer ({of_answer}) take the first token of the answers, which"
        text.say(f"{said} {have}")
    of_foil, have = those("foil", "foil")
    if of_foil:
        text.say(
            f"Measures of the foil ({of_foil}) compare that token with the first one of a wrong "
            f"answer, which {have}"
        )
    if "recovered" in names:
        text.say(
            "The recovered share of the logit difference is 0 at that of the corrupted run and 1 "
            f"at that of the clean run, and is not taken where these are less than {APART} logits "
            "apart",
            *CITED["recovered"],
        )


def _exact(text: Text, table: pd.DataFrame) -> None:
    """How the exact answers were found, where rows are at them."""
    told = metadata_of(table)
    if "exact_from" not in told:
        return
    given = told["exact_answer"]
    rules = [
        EXACT[one] if isinstance(one, str) else f"what the user's own function {one['name']} gives"
        for one in (given if isinstance(given, list) else [given])
    ]
    text.say(
        f"The exact answer of an output is {', else '.join(rules)} ({told['exact_from'] or 'none'};"
        f" {counted(told['exact_empty'], 'prompt')} without one)",
        "orgad2024",
    )


def _measures(table: pd.DataFrame, names: Sequence[str], unit: str) -> Iterator[str]:
    """What each measure is, and its unit."""
    own = "measures of the user's own (%s)"
    said = {
        "information": f"divergences in {unit} (%s)",
        "fraction": "the total variation, a fraction (%s)",
        "logp": f"log-probabilities in the edited run, in {unit} (%s)",
        "rank": "ranks in the edited run, 0 for the likeliest token (%s)",
        "percent": "the change of the answer's probability in percent of the clean one (%s)",
        "logit_diff": "the logit of the answer minus that of a foil in the edited run (%s)",
        "recovered": "the share of the logit difference that is recovered (%s)",
    }
    alike: dict[str, list[str]] = {}
    for name in names:
        measure = measure_of(table, name)
        kind = "logp" if (measure.unit, measure.lower) == ("information", None) else measure.unit
        kind = kind or name
        alike.setdefault(said.get(kind, own) if name in MEASURES else own, []).append(name)
    for what, ones in alike.items():
        js = "; the Jensen-Shannon divergence is js" if "js" in ones else ""
        yield what % f"{', '.join(ones)}{js}"


def _trust(text: Text, manifest: Mapping[str, Any]) -> None:
    receipt = manifest["receipt"]
    said = f"Cells were computed with the {receipt['executor']} executor"
    kinds = receipt["tried"][-1].get("kinds", {}).values()
    if kinds:
        apart = max(kind["max_difference"] for kind in kinds)
        said += f", which agreed with one full pass per cell to {apart:.1g} nats of JS on trial "
        said += "cells of this model"
    if receipt["maximal_effects"]:
        least = min(receipt["maximal_effects"].values())
        said += f" and maximal edits moved JS by {least:.2g} or more"
    text.say(said)
    if "noise_floor" in manifest:
        text.say(
            "The noise floor, the 99th percentile of JS under edits of one unit in the last place "
            "at the same sites, is marked in the figures"
        )
    text.say(
        f"The run is identified by config digest {manifest['config_digest']} (executor setting "
        f"{manifest['config']['executor']})"
    )


def _elsewhere(text: Text, run: RunFolder, manifest: Mapping[str, Any]) -> None:
    """Versions and machines of shards that were computed in another place, as far as they say."""
    found: dict[str, None] = {}
    here = _machine(manifest["hardware"])
    for about in () if manifest.get("compact") else run.abouts(manifest):
        computed = about.get("computed", {})
        for name, value in computed.get("versions", {}).items():
            if value != manifest["versions"].get(name):
                found[f"{name} {value}"] = None
        if (there := _machine(computed.get("hardware", manifest["hardware"]))) != here:
            found[there] = None
    if found:
        names = list(found)
        listed = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
        text.say(f"Parts of the run were computed with {listed}")
