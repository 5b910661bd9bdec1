"""Natural states: what clean runs hold at a place, and how far from them another state is."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.passes.edit import taken
from knockgrid.passes.prepared import Prepared, batches, ids_of
from knockgrid.passes.run import record
from knockgrid.prompts.positions import At, lacks, resolve

FEWEST = 3  # other prompts; below, no neighbour is near or far
FLOOR = 0.1  # of the median standard deviation
DISTANCES = ("standardised", "euclidean")


class Place(NamedTuple):
    """An activation at a layer and a position name, of all heads or of some."""

    act_name: str
    layer: int
    at: At
    heads: tuple[int, ...] | None = None


class Compared(NamedTuple):
    """How an edited state lies among natural ones."""

    norm_ratio: float = math.nan
    nn_percentile: float = math.nan
    n_natural: int = 0


def states_at(
    activation: Tensor, pos: Sequence[int], heads: tuple[int, ...] | None
) -> Float[Tensor, "token d"]:
    """The states at some positions of an activation `[pos, ...]`, heads side by side."""
    found = taken(activation, pos)
    return (found if heads is None else taken(found, heads, 1)).flatten(1).detach().cpu().clone()


@dataclass(frozen=True, eq=False)
class Natural:
    """The states `[state, d]` of clean runs at one place, all tokens pooled.

    `texts` names the prompt of each; a state's neighbours are those of other prompts.
    """

    states: Tensor
    texts: Sequence[str]
    distance: str

    @cached_property
    def _scale(self) -> Tensor:
        """The unit `[d]` of each dimension; with a floor, those that hardly vary do not count."""
        if self.distance == "euclidean":
            return torch.ones(self.states.shape[1], dtype=torch.float64)
        std = self.states.double().std(0, correction=0)
        std = std.clamp(min=FLOOR * float(std.median()))
        return std.where(std > 0, 1.0)

    @cached_property
    def _between(self) -> Tensor:
        """Distances `[state, state]`, infinite within a prompt."""
        scaled = self.states.double() / self._scale
        names = {text: i for i, text in enumerate(dict.fromkeys(self.texts))}
        owner = torch.tensor([names[text] for text in self.texts])
        return _distances(scaled, scaled).masked_fill(owner[:, None] == owner[None], torch.inf)

    def compare(self, edited: Float[Tensor, "token d"], *own: str) -> Compared | str:
        """Edited states, means over their tokens, among those of other texts; or why not."""
        others = [i for i, one in enumerate(self.texts) if one not in own]
        n = len({self.texts[i] for i in others})
        if n < FEWEST:
            return f"natural states of {n} other prompts, fewer than {FEWEST}"
        if not bool(edited.isfinite().all()):
            return "the edited state is not finite"
        wrong = (~self.states[others].isfinite().all(1)).nonzero()
        if len(wrong) > 0:
            return f"the natural state of {self.texts[others[int(wrong[0])]]!r} is not finite"
        natural = self.states[others].double()
        ratio = edited.double().norm(dim=1).mean() / natural.norm(dim=1).mean()
        usual = self._between[others][:, others].amin(1)
        apart = _distances(edited.double() / self._scale, natural / self._scale).amin(1)
        # of two equal distances each is the larger half of the time
        below = (usual < apart[:, None]).double() + 0.5 * (usual == apart[:, None]).double()
        return Compared(float(ratio), 100 * float(below.mean()), len(others))


def _distances(one: Tensor, other: Tensor) -> Tensor:
    """Euclidean distances `[state, other]`; 0 for equal states, which products would not give."""
    return torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist")


def natural_states(
    model: TransformerBridge, ready: Sequence[Prepared], places: Collection[Place], distance: str
) -> dict[Place, Natural]:
    """What clean runs of some prompts hold at some places; a prompt without a place is left out."""
    states: dict[Place, list[Tensor]] = {place: [] for place in places}
    texts: dict[Place, list[str]] = {place: [] for place in places}
    sites = [(place.act_name, place.layer) for place in places]
    for batch in batches(ready):
        ids = ids_of(model, batch)
        seen = record(model, ids, measured=slice(-1, None), sites=sites, keep_kv=False)
        for i, one in enumerate(batch):
            for place in places:
                if lacks(one.prompt, one.tokens, place.at) is None:
                    pos = resolve(one.prompt, one.tokens, place.at)
                    found = states_at(seen.acts[place[:2]][i], pos, place.heads)
                    states[place].append(found)
                    texts[place] += [one.prompt.text] * len(found)
    return {
        place: Natural(torch.cat(found) if found else torch.empty(0, 1), texts[place], distance)
        for place, found in states.items()
    }
