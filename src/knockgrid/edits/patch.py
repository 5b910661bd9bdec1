"""patch: put another value in place of an activation."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, final

from knockgrid.edits.intervention import Intervention, Place, heads_of
from knockgrid.edits.layers import Layers, Window, of_name, window_of
from knockgrid.host.hooks import act_name_of
from knockgrid.passes.edit import Edit
from knockgrid.prompts.positions import At
from knockgrid.sources.other_run import CorruptedRun, source_of
from knockgrid.sources.source import Source


@final
@dataclass(frozen=True, kw_only=True)
class Patch(Intervention):
    """The frozen value behind `patch()`."""

    act_name: str
    pos: At
    source: Source = field(default_factory=CorruptedRun)
    alpha: float = 1.0
    moves: ClassVar[str] = "pos"

    def __post_init__(self) -> None:
        object.__setattr__(self, "act_name", act_name_of(self.act_name))
        super().__post_init__()

    def default_name(self) -> str:
        at = self.source.run_layer
        source = "" if at is None else f" from layer {at}"
        return f"{self.act_name}@{self.pos}{source}{of_name(self.window)}"

    @property
    def kind(self) -> str:
        return f"patch {self.act_name}"

    @property
    def sites(self) -> tuple[tuple[str, At], ...]:
        return ((self.act_name, self.pos),)

    def edits(self, place: Place) -> tuple[Edit, ...]:
        pos, layer, adds = place.pos(self.pos), place.layer, self.source.adds
        value = place.value(self.source, self.act_name, self.pos)
        return (
            Edit(self.act_name, layer, pos, None, self.heads, value, alpha=self.alpha, add=adds),
        )


def patch(
    act_name: str,
    pos: At,
    source: Source | None = None,
    window: Window = 1,
    *,
    layers: Layers = None,
    alpha: float = 1.0,
    heads: int | Sequence[int] | None = None,
    name: str = "",
    label: str = "",
) -> Patch:
    """Replace an activation at a place, at one layer or a set of layers.

    Example:
        >>> import knockgrid as kg
        >>> kg.patch("resid_post", "subject").source.label
        'corrupted_run(noise(3.0))'
        >>> kg.patch("mlp_out", "last", kg.zero(), window=5).name
        'mlp_out@last'

    `act_name` is a TransformerLens short name (`resid_pre`, `resid_mid`, `resid_post`, `mlp_out`,
    `attn_out`, `q`, `k`, `v`, `z`, ...) or the name of its hook without a layer (`attn.hook_z`),
    `pos` a position name, index or list, `source` what is put there (by default the corrupted run),
    `alpha` the share of the way from the clean value to it. `heads` limits the patch to some heads,
    for activations that have them. `layers` ("all", a list, `all_but(...)`) are the same in every
    cell, of which there is then one.

    In a free run, `last+k` is the place whose state writes token k of the text, whatever the text
    is by then; `donor`, `zero` and `fixed` have values for it, in a list for several of them.
    """
    return Patch(
        act_name=act_name,
        pos=pos,
        source=source_of(source),
        window=window_of(window, layers, 1),
        alpha=alpha,
        heads=heads_of(heads),
        name=name,
        label=label,
    )
