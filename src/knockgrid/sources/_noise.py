"""noise: Gaussian noise, on a run's subject embeddings or on an activation itself."""

import math
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from knockgrid._errors import InputError, unknown
from knockgrid._prompt import Prompt
from knockgrid._source import RunSpec, Source, Where, normal

SCALES = ("subject", "vocabulary")


@final
@dataclass(frozen=True)
class Noise(Source):
    """The frozen value behind `noise()`."""

    k: float = 3.0
    scale_from: str = "subject"
    adds: ClassVar[bool] = True
    needs_statistics: ClassVar[bool] = True
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (isinstance(self.k, int | float) and math.isfinite(self.k) and self.k > 0):
            raise InputError(f"noise({self.k!r}) needs a positive number of standard deviations")
        if self.scale_from not in SCALES:
            raise unknown("scale_from", self.scale_from, SCALES)

    @property
    def label(self) -> str:
        other = "" if self.scale_from == "subject" else f", scale_from={self.scale_from!r}"
        return f"noise({float(self.k)}{other})"

    def corrupted(self, prompt: Prompt) -> RunSpec:
        """The run that this noise corrupts: the same prompt, its subject embeddings disturbed."""
        if "subject" not in prompt.spans:
            raise InputError(
                f"prompt {prompt.text!r} has no span 'subject' to put noise on; "
                "give Prompt(text, spans={'subject': ...})"
            )
        return RunSpec(prompt, scale=float(self.k), scale_from=self.scale_from)

    def value(self, where: Where) -> Tensor:
        assert where.std is not None
        key = (*where.key, where.act_name, where.layer)
        drawn = normal(where.base.shape, key).to(where.base.device, where.base.dtype)
        return self.k * where.std * drawn


def noise(k: float = 3.0, scale_from: str = "subject") -> Noise:
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

    Source: causal tracing, Meng et al. 2022 (arXiv 2202.05262, section 2.1), with k = 3.

    Raises:
        InputError: k not positive, or an unknown `scale_from`.
    """
    return Noise(k, scale_from)
