"""check: try each kind of edit on a model, alone."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from transformer_lens.model_bridge import TransformerBridge

from knockgrid.edits import edge_patch, knockout, patch
from knockgrid.edits.intervention import Intervention
from knockgrid.engine.receipts import anew
from knockgrid.engine.slower import FallbackWarning
from knockgrid.errors import InputError
from knockgrid.prompts.prompt import Prompt
from knockgrid.sweep import sweep

PROMPT = Prompt("The Eiffel Tower is located in the city of", spans={"subject": "The Eiffel Tower"})


def kinds() -> list[Intervention]:
    """One intervention of every kind that figures use."""
    acts = ("resid_pre", "resid_post", "attn_out", "mlp_out", "z", "q", "k", "v")
    patches: list[Intervention] = [patch(act_name, "subject") for act_name in acts]
    return [*patches, knockout(window=1), edge_patch(window=1)]


@dataclass(frozen=True)
class Checked:
    """The executor that a kind of edit may use, and why it is a slow one; or why it is refused."""

    kind: str
    executor: str | None = None
    max_difference: float | None = None
    refused: str | None = None
    slow: str | None = None


def checked(model: TransformerBridge) -> Iterator[Checked]:
    """Each kind, tried when asked for."""
    for one in kinds():
        try:
            with anew(), warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always", FallbackWarning)
                table = sweep(model, PROMPT, one, progress=False, layers=[0])
        except InputError as error:
            yield Checked(one.kind, refused=str(error))
            continue
        receipt = table.attrs["knockgrid"]["receipt"]
        last = receipt["tried"][-1].get("kinds", {}).get(one.kind, {})
        slow = [w.message.plain for w in said if isinstance(w.message, FallbackWarning)]
        apart = float(last.get("max_difference", 0.0))
        yield Checked(one.kind, receipt["executor"], apart, slow=slow[0] if slow else None)
