"""Source: where the value of a patch comes from."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from knockgrid.errors import InputError, shown
from knockgrid.passes.answer_positions import positions_in
from knockgrid.passes.run import Run
from knockgrid.prompts.positions import At
from knockgrid.prompts.prompt import Prompt


class Unavailable(InputError):
    """A prompt for which a source has nothing to give; its cells are dropped and counted."""


@dataclass(frozen=True)
class RunSpec:
    """The extra run a source needs: over which prompt, and with how much noise at which tokens.

    `scale` counts deviations of the subject embeddings. The prompt of a swap must have the form of
    the base run's.
    """

    prompt: Prompt
    scale: float = 0.0
    scale_from: str = "subject"
    pos: At = "subject"
    is_swap: bool = False


@dataclass(frozen=True, eq=False)
class Where:
    """One place that a source is asked to fill.

    `base` is `[pos, ...]`, the unedited activation there; `run` is the source's own run with the
    positions that play the same role in it; `mean` and `std` are taken over the prompt set at
    this site and position name.
    """

    act_name: str
    layer: int
    base: Tensor
    key: tuple[object, ...]
    run: Run | None = None
    run_pos: tuple[int, ...] = ()
    mean: Tensor | None = None
    std: Tensor | None = None

    def drawn(self) -> Tensor:
        """Standard normal numbers for this place, in the shape of `base`."""
        return normal(self.base.shape, (*self.key, self.act_name, self.layer))


@dataclass(frozen=True)
class Source(ABC):
    """What a patch puts in place of an activation; a subclass has a `label` and a `value`."""

    adds: ClassVar[bool] = False
    """Whether the value is added to the activation instead of replacing it."""
    needs_statistics: ClassVar[bool] = False
    """Whether `Where.mean` and `Where.std` are wanted."""
    from_run: ClassVar[bool] = False
    """Whether the value is the activation of another run, with keys and values of its own."""
    random: ClassVar[bool] = False
    """Whether further samples differ."""

    @property
    @abstractmethod
    def label(self) -> str:
        """The name in tables and methods paragraphs, parameters included."""

    @property
    def corruption(self) -> str:
        """Its label, or that of what corrupts the run it is taken from."""
        return self.label

    @abstractmethod
    def value(self, where: Where) -> Tensor:
        """The replacement, in the shape of `where.base`."""

    @property
    def run_layer(self) -> int | None:
        """The layer of its run that the value is taken from; None for the layer that is edited."""
        return None

    def run_pos(self, base: Run, other: Run, at: At, pos: tuple[int, ...]) -> tuple[int, ...]:
        """The positions of its run that play the role of `pos`, those of the place `at`."""
        return aligned(base, other, at, pos)

    def check(self, act_name: str, n_layers: int) -> None:  # noqa: B027
        """Refuse a place that the source's tensors do not fit, before anything runs."""

    def run(self, prompt: Prompt) -> RunSpec | None:
        """The extra run this source needs for a prompt; `Unavailable` where it offers none."""
        return None


def normal(shape: Sequence[int], key: Sequence[object]) -> Tensor:
    """Standard normal numbers that depend on a key alone, not on the order of calls.

    Drawn in float32 on the CPU, so that every device and dtype sees the same draw; another kind of
    processor rounds it differently in the last bit.
    """
    return torch.randn(tuple(shape), generator=seeded(key), dtype=torch.float32, device="cpu")


def seeded(key: Sequence[object]) -> torch.Generator:
    """A generator of random numbers whose state depends on a key alone."""
    digest = hashlib.sha256(repr(tuple(key)).encode("utf-8", "replace")).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:7], "big"))


def aligned(base: Run, other: Run, at: At, positions: tuple[int, ...]) -> tuple[int, ...]:
    """The positions of `other` that play the role of `positions` in `base`.

    Names are looked up in the other prompt. Indices mean the same only in prompts of one length;
    random tokens, drawn by the id of `base`, only where the subject has the same place too.
    """
    if other.prompt is base.prompt:
        return positions
    parts = [at] if isinstance(at, str | int) else list(at)
    named = [p for p in parts if p != "random"]
    drawn = positions_in(base, "random") if len(named) < len(parts) else ()
    found = tuple(sorted({*positions_in(other, named), *drawn}))
    alike = base.n_prompt == other.n_prompt
    if drawn:
        alike &= positions_in(base, "subject") == positions_in(other, "subject")
    bare = drawn or any(isinstance(p, int) for p in parts)
    if len(found) != len(positions) or (bare and not alike):
        raise InputError(
            f"place {at!r} covers {len(positions)} tokens of {shown(base.prompt.text)} and "
            f"{len(found)} of {shown(other.prompt.text)} (lengths {base.n_prompt} and "
            f"{other.n_prompt}), so they cannot be aligned; patch one token by name, such as "
            "'subject_last'"
        )
    return found
