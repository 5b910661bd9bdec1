"""The sentences of the methods paragraph on what was edited, and what they are written with."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from knockgrid.display.escape import latex
from knockgrid.edits.data import from_data
from knockgrid.edits.edges import EdgePatch, Knockout
from knockgrid.edits.joint import Joint
from knockgrid.edits.layers import AllBut, Window
from knockgrid.edits.patch import Patch
from knockgrid.errors import InputError
from knockgrid.stats.clusters import counted
from knockgrid.table.summary import ranges

WINDOWS = {
    "all": "all layers",
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
    """One sentence for all rows that differ in their place only, and one for every joint."""
    groups: dict[tuple, list[Any]] = {}
    for one in manifest["interventions"]:
        if not _exchanged(one):
            made = _rebuilt(one)
            alike = (made.kind, str(made.window), made.source and made.source.label, made.heads)
            of = made.name if isinstance(made, Joint) else getattr(made, "pairs", None)
            groups.setdefault((*alike, made.alpha, of), []).append(made)
    for group in groups.values():
        one = group[0]
        rows = [row_of(manifest, each.name) for each in group]
        if isinstance(one, Joint):
            clauses = [_clause(part, manifest) for part in one.parts]
            pairs = zip(one.parts, clauses, strict=True)
            said = "; ".join(f"{what} ({_where(part)})" for part, (what, _) in pairs)
            keys = ["kim2026", *(key for _, some in clauses for key in some)]
            text.say(f"{_upper(rows[0])} makes {len(one.parts)} edits together: {said}", *keys)
            continue
        what, keys = _clause(one, manifest)
        places = [f"{_where(each)} in {row}".strip() for each, row in zip(group, rows, strict=True)]
        text.say(f"{_upper(what)}: {', '.join(places)}", *keys)
    if any("last+" in str(one["place"]) for one in manifest["interventions"]):
        text.say("In a written text 'last+k' is the state that writes token k", "akarlar2026")


def _clause(one: Any, manifest: Mapping[str, Any]) -> tuple[str, Sequence[str]]:
    """What one edit does, without the places, and what it cites."""
    window = _window(one.window)
    if isinstance(one, Knockout):
        some = "" if one.pairs is None else f", {one.pairs.words},"
        return (
            f"attention was blocked{some} in {_heads(one.heads)} at {window}, by setting the "
            "scores to the smallest number of their dtype before the softmax, which shares the "
            "weight among the rest",
            ["geva2023"],
        )
    if not isinstance(one, Patch):
        what = f"the edit {one.kind}" + (f" with {one.source.label}" if one.source else "")
        return f"{what} was made at {window}", []
    how, keys = _source(one.source, manifest)
    part = "" if one.alpha == 1 else f"{one.alpha:g} of the way from the clean value to "
    of = "" if one.heads is None else f" of {_heads(one.heads)}"
    if manifest["direction"] == "denoising":
        run = how.removeprefix("the activation of ")
        return f"in {run}, the activation {one.act_name}{of} was restored at {window}", keys
    return f"the activation {one.act_name}{of} was replaced at {window} by {part}{how}", keys


def _where(one: Any) -> str:
    if isinstance(one, Knockout | EdgePatch):
        return f"from {_place(one.dest)} to {_place(one.src)}"
    return f"at {_place(one.pos)}" if isinstance(one, Patch) else ""


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


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


def _source(source: Any, manifest: Mapping[str, Any]) -> tuple[str, Sequence[str]]:
    """What a source puts in place of an activation, and who proposed it."""
    label = source.label
    if getattr(source, "run_layer", None) is not None:
        own = (
            "each prompt's donor"
            if isinstance(source.given, Mapping)
            else f"prompt {source.given.id!r}"
        )
        at = "" if source.pos is None else f" at {_place(source.pos)}"
        return f"the activation of layer {source.run_layer}{at} in the run of {own}", [
            "ghandeharioun2024"
        ]
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


def _window(window: Window) -> str:
    if isinstance(window, AllBut):
        inside = window.layers
        return "all layers but " + (
            _window(inside) if isinstance(inside, int) else ranges(inside, "-")
        )
    if isinstance(window, tuple):
        return f"layers {ranges(window, '-')}"
    if isinstance(window, str):
        return WINDOWS[window]
    if window == 1:
        return "one layer"
    return f"a window of {window} layers centred on the layer and clipped at the ends"
