"""pyvene, one intervened pass per cell.

pyvene has no anchor on attention scores, so the attention row is a raw PyTorch hook here, as a
user of it would have to write it.
"""

import pyvene
import torch

from contenders import raw_hooks
from contenders._task import Task, js

ROWS = ("subject", "attention", "last")


def patched(model, layer, case, row, vector):
    """Logits with one vector at the row's positions of one block's output."""
    length = case.ids.shape[1]
    pos = case.subject if row == "subject" else [length - 1]
    intervention = pyvene.VanillaIntervention(source_representation=vector)
    config = {"layer": layer, "component": "block_output", "intervention": intervention}
    wrapped = pyvene.IntervenableModel(config, model)
    _, out = wrapped({"input_ids": case.ids}, unit_locations={"base": [[pos]]})
    return out.logits[0, -1]


@torch.inference_mode()
def js_of(task: Task) -> list[float]:
    """JS of every prompt, row and layer, in this order."""
    model, found = task.hf(), []
    for case in task.cases:
        clean = model(case.ids).logits[0, -1]
        for row in ROWS:
            for layer, vector in enumerate(task.vectors):
                if row == "attention":
                    handle = raw_hooks.attach(model, row, layer, case, vector)
                    found.append(js(clean, model(case.ids).logits[0, -1]))
                    handle.remove()
                else:
                    found.append(js(clean, patched(model, layer, case, row, vector)))
    return found
