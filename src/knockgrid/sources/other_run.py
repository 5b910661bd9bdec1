"""corrupted_run and donor: the activations of another run; noise and swap, which corrupt one."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import ClassVar, final

from torch import Tensor

from knockgrid import sources
from knockgrid.errors import InputError, as_int, shown, unknown
from knockgrid.passes.answer_positions import positions_in
from knockgrid.passes.edit import taken
from knockgrid.passes.run import Run
from knockgrid.prompts.positions import At, place_of
from knockgrid.prompts.prompt import Prompt, shared_answers
from knockgrid.sources.source import RunSpec, Source, Unavailable, Where

SCALES = ("subject", "vocabulary")


@final
@dataclass(frozen=True)
class Noise(Source):
    """The frozen value behind `noise()`."""

    k: float = 3.0
    scale_from: str = "subject"
    pos: At = "subject"
    adds: ClassVar[bool] = True
    needs_statistics: ClassVar[bool] = True
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (isinstance(self.k, Real) and math.isfinite(self.k) and self.k > 0):
            raise InputError(f"noise({self.k!r}) needs a positive number of standard deviations")
        if self.scale_from not in SCALES:
            raise unknown("scale_from", self.scale_from, SCALES)
        pos = place_of(self.pos)
        object.__setattr__(self, "pos", pos if isinstance(pos, str | int) else tuple(pos))

    @property
    def label(self) -> str:
        given = {"scale_from": self.scale_from, "pos": self.pos}
        other = [f", {name}={value!r}" for name, value in given.items() if value != "subject"]
        return f"noise({float(self.k)}{''.join(other)})"

    def corrupted(self, prompt: Prompt) -> RunSpec:
        """The run that this noise corrupts: the same prompt, some of its embeddings disturbed."""
        if "subject" not in prompt.spans:
            raise InputError(
                f"prompt {shown(prompt.text)} has no span 'subject' to put noise on; "
                "give Prompt(text, spans={'subject': ...})"
            )
        return RunSpec(prompt, float(self.k), self.scale_from, self.pos)

    def value(self, where: Where) -> Tensor:
        if self.pos != "subject":
            raise InputError(
                f"{self.label} as the source of a patch goes where the patch is; pos= names the "
                "tokens of a corrupted run: corrupted_run(by=noise(pos=...))"
            )
        assert where.std is not None
        return self.k * where.std * where.drawn().to(where.base)


@final
@dataclass(frozen=True)
class Swap:
    """The frozen value behind `swap()`."""

    label: ClassVar[str] = "swap()"

    def corrupted(self, prompt: Prompt) -> RunSpec:
        """The run of the partner prompt."""
        if prompt.swap is None:
            raise Unavailable(f"prompt {prompt.id!r} has no swap partner; give Prompt(..., swap=)")
        if same := shared_answers(prompt, prompt.swap):
            raise Unavailable(
                f"the swap partner of {prompt.id!r} has the same answer {min(same)!r}"
            )
        return RunSpec(prompt.swap, is_swap=True)


@dataclass(frozen=True)
class OfRun(Source):
    """A source that takes the activation of its own run at the positions of the same role."""

    from_run: ClassVar[bool] = True

    def value(self, where: Where) -> Tensor:
        assert where.run is not None
        layer = where.layer if self.run_layer is None else self.run_layer
        return taken(where.run.acts[where.act_name, layer], where.run_pos)


@final
@dataclass(frozen=True)
class CorruptedRun(OfRun):
    """The frozen value behind `corrupted_run()`."""

    by: Noise | Swap = field(default_factory=Noise)

    @property
    def label(self) -> str:
        return f"corrupted_run({self.by.label})"

    @property
    def corruption(self) -> str:
        return self.by.label

    @property
    def random(self) -> bool:  # type: ignore[override]
        """Only noise differs from sample to sample."""
        return isinstance(self.by, Noise)

    def run(self, prompt: Prompt) -> RunSpec:
        return self.by.corrupted(prompt)


@final
@dataclass(frozen=True, eq=False)
class Donor(OfRun):
    """The frozen value behind `donor()`."""

    given: Prompt | Mapping[str, Prompt]
    layer: int | None = None
    pos: At | None = None

    @property
    def label(self) -> str:
        given = self.given
        said = [str(given.id) if isinstance(given, Prompt) else f"{len(given)} prompts"]
        said += [] if self.layer is None else [f"layer={self.layer}"]
        said += [] if self.pos is None else [f"pos={self.pos!r}"]
        return f"donor({', '.join(said)})"

    @property
    def run_layer(self) -> int | None:
        return self.layer

    def run_pos(self, base: Run, other: Run, at: At, pos: tuple[int, ...]) -> tuple[int, ...]:
        if self.pos is None:
            return super().run_pos(base, other, at, pos)
        found = positions_in(other, self.pos)
        if len(found) != len(pos):
            raise InputError(
                f"{self.label} gives {len(found)} tokens of {shown(other.prompt.text)} for "
                f"{len(pos)} at {at!r}; name places with as many tokens, such as 'subject_last'"
            )
        return found

    def check(self, act_name: str, n_layers: int) -> None:
        if self.layer is not None and not 0 <= self.layer < n_layers:
            raise InputError(
                f"{self.label} takes its values from layer {self.layer}, and the model has layers "
                f"0 to {n_layers - 1}"
            )

    def run(self, prompt: Prompt) -> RunSpec:
        if isinstance(self.given, Prompt):
            return RunSpec(self.given)
        if prompt.id not in self.given:
            raise Unavailable(f"donor() has no prompt for {prompt.id!r}")
        return RunSpec(self.given[str(prompt.id)])


def noise(k: float = 3.0, scale_from: str = "subject", *, pos: At = "subject") -> Noise:
    """Gaussian noise of k standard deviations.

    Example:
        >>> import knockgrid as kg
        >>> kg.noise().label, kg.corrupted_run(by=kg.noise(1)).label
        ('noise(3.0)', 'corrupted_run(noise(1.0))')

    Inside `corrupted_run` it is added to the embeddings of the subject tokens, or of those at `pos`
    (`"rest"`, `"bos"`, `"random"`, ...) in the same dose; the deviation is that of the embedding
    *activation* over the subject tokens of the prompt set, or with `scale_from="vocabulary"` over
    all tokens the model knows. As a source of a patch it is added to the patched activation itself,
    scaled by that activation's own deviation over the prompt set, with a draw for every layer.
    There `pos` is an `InputError`, and everywhere a k that is not positive or an unknown place.

    Source: causal tracing, Meng et al. 2022 (arXiv 2202.05262, section 2.1), with k = 3.
    """
    return Noise(k, scale_from, pos)


def swap() -> Swap:
    """Exchange the subject for the one of `Prompt.swap`, which has another answer.

    Example:
        >>> import knockgrid as kg
        >>> kg.corrupted_run(by=kg.swap()).label
        'corrupted_run(swap())'

    The partner must have the same token length and its subject at the same positions; prompts
    without such a partner are dropped from the rows that need one, and counted.

    Source: symmetric token replacement, Zhang & Nanda 2023 (arXiv 2309.16042).
    """
    return Swap()


def corrupted_run(by: Noise | Swap | None = None) -> CorruptedRun:
    """Take values from a run whose subject was corrupted, by noise (default) or by a swap.

    Example:
        >>> import knockgrid as kg
        >>> kg.corrupted_run() == kg.corrupted_run(by=kg.noise(3.0))
        True

    One corrupted run serves all layers of a prompt and sample. Where several tokens are measured
    it follows the clean continuation.
    """
    by = Noise() if by is None else by
    if not isinstance(by, Noise | Swap):
        raise InputError(f"corrupted_run(by={by!r}): a run is corrupted by noise() or by swap()")
    return CorruptedRun(by)


def donor(
    prompt: Prompt | Mapping[str, Prompt], *, layer: int | None = None, pos: At | None = None
) -> Donor:
    """Take values from another prompt's run, one for all or a mapping from prompt id.

    Example:
        >>> import knockgrid as kg
        >>> other = kg.Prompt("Lima is in", spans={"subject": "Lima"}, id="lima")
        >>> kg.patch("resid_post", "subject_last", kg.donor(other)).source.label
        'donor(lima)'

    Places are aligned by role: the last subject token of the donor goes to the last subject token;
    `pos` names another place of the donor. Values come from the layer that is edited, or from
    `layer` (counted from 0); a prompt's own id in a mapping makes it its own donor, as for
    back-patching. Prompts that a mapping does not name are dropped from that row, and counted.

    In a free run `last+k` is the donor's state behind k tokens of its continuation, which is
    tokenized anew; a prompt that is its own donor has the states of its greedy text there.

    Raises:
        InputError: no prompt, or in a sweep a place with another number of tokens in the donor, or
            a layer that the model does not have.

    Source: source layer and target layer of Patchscopes (Ghandeharioun et al. 2024, arXiv
    2401.06102) and of back-patching (Biran et al. 2024, arXiv 2406.12775).
    """
    number = as_int(layer)
    if layer is not None and (isinstance(number, bool) or not isinstance(number, int)):
        raise InputError(f"layer is {shown(layer)}; give the number of one layer")
    pos = None if pos is None else place_of(pos)
    given = prompt.values() if isinstance(prompt, Mapping) else [prompt]
    if not all(isinstance(one, Prompt) for one in given):
        raise InputError(f"donor({prompt!r}): give a Prompt or a mapping from prompt id to Prompt")
    return Donor(prompt, number, tuple(pos) if isinstance(pos, list) else pos)


def source_of(given: object) -> Source:
    """A source as a user gives it, by default the corrupted run."""
    names = [name for name in dir(sources) if name != "swap"]
    if isinstance(given, str):
        name = given.split("(")[0]
        if name in names:
            call = given if "(" in given else f"{name}()"
            raise InputError(f"source is the text {shown(given)}; write {call}, without quotes")
        raise unknown("source", name, names)
    if given is None:
        return CorruptedRun()
    if not isinstance(given, Source):
        raise InputError(
            f"source is {given!r}; use {', '.join(f'{name}()' for name in names)} "
            "(a swap corrupts a run: corrupted_run(by=swap()))"
        )
    return given
