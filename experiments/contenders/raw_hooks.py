"""Raw PyTorch hooks on the Hugging Face model, one pass per cell."""

import torch

from contenders._task import Task, js

ROWS = ("subject", "attention", "last")


def attach(model, row, layer, case, vector):
    """Register the hook of one cell on a Llama-like model."""
    block = model.model.layers[layer]

    def patch(module, args, output):
        hidden = output[0] if isinstance(output, tuple) else output
        hidden[:, case.subject if row == "subject" else [-1]] = vector
        return output

    def mask(module, args, kwargs):
        length = case.ids.shape[1]
        low = torch.finfo(vector.dtype).min
        own = torch.full((length, length), low).triu(1)[None, None].to(vector)
        own[..., -1, case.subject] = low
        return args, {**kwargs, "attention_mask": own}

    if row == "attention":
        return block.self_attn.register_forward_pre_hook(mask, with_kwargs=True)
    return block.register_forward_hook(patch)


@torch.inference_mode()
def js_of(task: Task) -> list[float]:
    """JS of every prompt, row and layer, in this order."""
    model, found = task.hf(), []
    for case in task.cases:
        clean = model(case.ids).logits[0, -1]
        for row in ROWS:
            for layer, vector in enumerate(task.vectors):
                handle = attach(model, row, layer, case, vector)
                try:
                    found.append(js(clean, model(case.ids).logits[0, -1]))
                finally:
                    handle.remove()
    return found
