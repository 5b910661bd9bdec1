"""What `knockgrid check` prints: each kind of edit on a model, tried alone."""

from collections.abc import Iterator

from knockgrid import _sweep
from knockgrid._errors import InputError
from knockgrid._intervention import Intervention
from knockgrid._prompt import Prompt
from knockgrid.edge.config import SweepConfig
from knockgrid.edge.plan import load_model
from knockgrid.interventions import edge_patch, knockout, patch

PROMPT = Prompt("The Eiffel Tower is located in the city of", spans={"subject": "The Eiffel Tower"})


def kinds() -> list[Intervention]:
    """One intervention of every kind that figures use."""
    acts = ("resid_pre", "resid_post", "attn_out", "mlp_out", "z", "q", "k", "v")
    patches: list[Intervention] = [patch(act_name, "subject") for act_name in acts]
    return [*patches, knockout(window=1), edge_patch(window=1)]


def checked(config: SweepConfig) -> Iterator[str]:
    """One line per kind: the executor that may be used, or why the kind is refused."""
    model = load_model(config)
    yield f"{model.cfg.model_name}: {model.cfg.architecture}, {model.cfg.n_layers} layers"
    for one in kinds():
        try:
            table = _sweep.sweep(model, PROMPT, one, progress=False, layers=[0])
        except InputError as error:
            yield f"  {one.kind:18} refused: {error}"
            continue
        receipt = table.attrs["knockgrid"]["receipt"]
        last = receipt["tried"][-1].get("kinds", {}).get(one.kind, {})
        apart = last.get("max_difference", 0.0)
        yield f"  {one.kind:18} {receipt['executor']:10} JS within {apart:.0e} of the reference"
