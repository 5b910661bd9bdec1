"""The sentences of the methods paragraph on what was edited, and what they are written with."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from knockgrid.display.escape import latex
from knockgrid.edits.data import from_data
from knockgrid.edits.edges import Knockout
from knockgrid.edits.patch import Patch
from knockgrid.errors import InputError
from knockgrid.stats.clusters import counted

WINDOWS = {
    "only": "that layer alone",
    "all_but": "all layers but that one",
    "from": "that layer and all later ones",
    "up_to": "that layer and all earlier ones",
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


def say_edits(text: Text, manifest: Mapping[str, Any]) -> None:
    """One sentence for all rows that differ in their place only."""
    groups: dict[tuple, list[Any]] = {}
    for one in manifest["interventions"]:
        if not _exchanged(one):
            made = _rebuilt(one)
            alike = (made.kind, made.window, made.source and made.source.label, made.heads)
            groups.setdefault((*alike, made.alpha), []).append(made)
    for group in groups.values():
        one, window = group[0], _window(group[0].window)
        if isinstance(one, Knockout):
            where = [f"from {_place(each.dest)} to {_place(each.src)}" for each in group]
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
            where = [f"at {_place(each.pos)}" for each in group]
            what = f"The activation {one.act_name}{of} was replaced at {window} by {part}{how}"
            if manifest["direction"] == "denoising":
                run = how.removeprefix("the activation of ")
                what = f"In {run}, the activation {one.act_name}{of} was restored at {window}"
            text.say(f"{what}: {_listed(group, where, manifest)}", *keys)
        else:
            what = f"The edit {one.kind}" + (f" with {one.source.label}" if one.source else "")
            text.say(f"{what} was made at {window}: {_listed(group, None, manifest)}")


def _rebuilt(one: Mapping[str, Any]) -> Any:
    """The intervention of a manifest's entry, or what is known of it where a class is missing."""
    try:
        return from_data(one["data"])
    except InputError:
        source = one["source"] and SimpleNamespace(label=one["source"])
        return SimpleNamespace(**{**one, "source": source, "heads": None, "alpha": None})


def _exchanged(one: Mapping[str, Any]) -> bool:
    """Whether a null exchanges subjects for ones with the same answer."""
    source = one["data"].get("source", {})
    return one["role"] == "null" and source.get("kind") == "donor"


def say_partners(text: Text, manifest: Mapping[str, Any]) -> None:
    """Rows that depend on the prompts: subjects exchanged for ones with the same answer."""
    names = [one["name"] for one in manifest["interventions"] if _exchanged(one)]
    if names:
        text.say(
            "The subject was exchanged for a different one of the prompt set with the same answer, "
            "relation, template and token length in "
            + ", ".join(row_of(manifest, name) for name in names)
        )


def _listed(group: Sequence[Any], where: Sequence[str] | None, manifest: Mapping[str, Any]) -> str:
    rows = [row_of(manifest, one.name) for one in group]
    return ", ".join(rows if where is None else map("{} in {}".format, where, rows))


def _source(label: str, manifest: Mapping[str, Any]) -> tuple[str, Sequence[str]]:
    """What a source puts in place of an activation, and who proposed it."""
    sigma = " and ".join(f"{v:.4g} over the {k} tokens" for k, v in manifest["sigma"].items())
    draws = counted(manifest["samples"], "draw")
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
            "the activation of a run over each prompt's swap partner, whose subject lies at the "
            "same token positions and whose answer differs",
            ["zhang2023"],
        )
    plain = {
        "zero()": "zeros",
        "mean_activation()": "its mean over the prompt set at the same position name",
    }
    return plain.get(label, f"the value of {label}"), []


def row_of(manifest: Mapping[str, Any], name: str) -> str:
    """A row by its name, and the label that figures give it."""
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
