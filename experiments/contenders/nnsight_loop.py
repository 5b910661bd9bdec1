"""nnsight, one invoke per layer: all cells of a row of one prompt in one traced batch."""

import torch
from nnsight import TransformersModel

from contenders._task import Task, js


def block_scores(model, layer, case, low):
    """Block subject -> last by the mask that the layer's attention is given."""
    attn = model.model.layers[layer].self_attn
    mask = attn.inputs[1]["attention_mask"].clone()
    mask[..., -1, case.subject] = low
    attn.inputs = (attn.inputs[0], {**attn.inputs[1], "attention_mask": mask})


@torch.inference_mode()
def js_of(task: Task) -> list[float]:
    """JS of every prompt, row and layer, in this order."""
    model, found = TransformersModel(task.hf(), tokenizer=task.bridge.tokenizer), []
    low = torch.finfo(task.vectors.dtype).min
    for case in task.cases:
        clean = task.hf()(case.ids).logits[0, -1]
        for row in ("subject", "attention", "last"):
            pos = case.subject if row == "subject" else [-1]
            with model.trace() as tracer:
                kept = list().save()  # noqa: C408 - nnsight adds `save` to values made by a call
                for layer, vector in enumerate(task.vectors):
                    with tracer.invoke(case.ids):
                        if row == "attention":
                            block_scores(model, layer, case, low)
                        else:
                            model.model.layers[layer].output[:, pos] = vector
                        kept.append(model.lm_head.output[:, -1])
            found += [js(clean, logits[0]) for logits in kept]
    return found
