"""noise: Gaussian noise, on a run's subject embeddings or on an activation itself."""

import math
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar, final

from torch import Tensor

from knockgrid.errors import InputError, shown, unknown
from knockgrid.prompts.positions import At, place_of
from knockgrid.prompts.prompt import Prompt
from knockgrid.sources.source import RunSpec, Source, Where

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


def noise(k: float = 3.0, scale_from: str = "subject", *, pos: At = "subject") -> Noise:
    """Gaussian noise of k standard deviations.

    Example:
        >>> import knockgrid as kg
        >>> kg.noise().label, kg.corrupted_run(by=kg.noise(1)).label
        ('noise(3.0)', 'corrupted_run(noise(1.0))')

    Inside `corrupted_run` it is added to the embeddings of the subject tokens; the standard
    deviation is that of the embedding *activation* over the subject tokens of the prompt set, or
    with `scale_from="vocabulary"` over all tokens the model knows. As a source of a patch it is
    added to the patched activation itself, scaled by that activation's own deviation over the
    prompt set, with a draw for every layer.

    `pos` puts the noise of a corrupted run on other tokens than the subject's, in the same dose,
    for contrasts (`"rest"`, `"bos"`, `"random"`, ...); prompts without such a token are dropped
    from the row, and counted.

    Source: causal tracing, Meng et al. 2022 (arXiv 2202.05262, section 2.1), with k = 3.

    Raises:
        InputError: k not positive, or an unknown `scale_from`; later, an unknown place, or `pos` in
            a patch of the activation itself.
    """
    return Noise(k, scale_from, pos)
