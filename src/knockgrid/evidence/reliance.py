"""reliance: how far a prompt's next token depends on attention to its subject."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.edits import knockout
from knockgrid.edits.intervention import Intervention
from knockgrid.edits.layers import layer_list
from knockgrid.engine.answers import outputs
from knockgrid.engine.in_memory import sweep_in_memory
from knockgrid.engine.setup import versions
from knockgrid.errors import InputError
from knockgrid.evidence.probes import check_answers
from knockgrid.host.bridge import check_ready, describe, load, n_layers
from knockgrid.passes.prepared import Prepared, batches, default_bos, ids_of, prepare
from knockgrid.passes.run import record
from knockgrid.prompts.matching import Judge, judged
from knockgrid.prompts.positions import resolve, tokenize_prompt
from knockgrid.prompts.prompt import Prompt
from knockgrid.table.table import KEY, numbers

SUBJECT_IS_LAST = "the last token belongs to the subject: there is no later query to mask it from"
NO_SUBJECT = "the prompt has no span 'subject'"
TEXTS = ("prompt", "relation", "subject", "text", "output", "measured_on", "note")


def reliance(
    model: str | Path | TransformerBridge,
    prompts: Sequence[Prompt],
    *,
    label_with: Intervention | Mapping[str, Prompt] | None = None,
    layer: int | None = None,
    n_tokens: int = 1,
    judge: Judge | None = None,
    prepend_bos: bool | None = None,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """How far the output moves when nothing after the subject can attend to it, prompt by prompt.

    Example:
        >>> import knockgrid as kg
        >>> prompts = kg.facts("us_state_capital")[:2]
        >>> frame = kg.evidence.reliance("demo", prompts, progress=False)
        >>> frame[["relation", "subject"]].values.tolist()
        [['us_state_capital', 'Alabama'], ['us_state_capital', 'Alaska']]
        >>> bool(frame.reliance.between(0, 0.6932).all())
        True

    Reliance is the JS divergence between the clean next-token distribution and the one with
    attention to the subject's tokens masked in all layers for every query after the subject. It is
    averaged over `n_tokens` of greedy output, whose queries are masked too. Give prompts that the
    model does not know as well: without them the filter by correctness, as in `known` or of a
    `judge`, `(prompt, text) -> bool`, is invisible.

    `label_with` takes the label from elsewhere, so that it is not the number that is measured
    later: another intervention, centred at `layer` (by default the middle one) and with `seed` for
    a random source, or a mapping from prompt ids to paraphrases of those prompts.

    One row per prompt, in order: `prompt`, `relation`, `subject`, `text`; `output` (the greedy
    continuation) and `correct`; `reliance` (nats, at most ln 2); `entropy` (nats) and `p_top` of
    the clean next-token distribution of the prompt itself; `measured_on`, the text that reliance
    comes from; and `note`, why reliance is NaN.

    Raises:
        InputError: bad input, a prompt without answers (and no judge), or a paraphrase without a
            prompt or the other way round.

    Source: Cheang et al. 2025 (arXiv 2510.09033), whose labels rest on it.

    Limits: reliance follows the entropy of the output (a sure prediction can move further), so
    compare at equal entropy, with `pair_prompts`; where little stands between subject and last
    token, it is related to the Subj. row of a sweep by construction.
    """
    model = load(model)
    check_ready(model)
    bos = default_bos(model, prepend_bos)
    ready = prepare(model, prompts, bos, n_tokens)
    check_answers(ready, judge)
    original = [one.prompt for one in ready]
    intervention = label_with if isinstance(label_with, Intervention) else None
    own = intervention is not None  # of the user's: it may need no later query
    asked = original if own or label_with is None else _paraphrases(original, label_with)
    notes = {str(one.id): None if own else _note(one, model, bos) for one in asked}
    usable = [one for one in asked if notes[str(one.id)] is None]
    middle = layer_list(n_layers(model) // 2 if layer is None else layer, n_layers(model))
    if intervention is None:
        whole = knockout(["between", "last"], "subject", 2 * n_layers(model), name="reliance")
        intervention = replace(whole, label="subject masked from all that follows")
    moved: dict[Any, float] = {}
    if usable:
        how: dict[str, Any] = {"layers": middle, "n_tokens": n_tokens, "mode": "persistent"}
        how |= {"metrics": "js", "prepend_bos": bos, "seed": seed, "progress": progress}
        table = sweep_in_memory(model, usable, intervention, **how)
        js = table.assign(value=numbers(table, "js")).groupby("prompt")["value"].mean()
        moved = js.to_dict()
        why: Any = table.groupby("prompt")["status"].first()[js.isna()]
        notes |= why.to_dict()
    said, certainty = outputs(model, ready), _certainty(model, ready)
    rows = [
        {
            "prompt": one.id,
            "relation": one.relation,
            "subject": one.span_text("subject"),
            "text": one.text,
            "output": said[name],
            "correct": judged(one, said[name], judge),
            "reliance": moved.get(name, np.nan),
            **certainty[name],
            "measured_on": other.text,
            "note": notes[name],
        }
        for name, one, other in zip(notes, original, asked, strict=True)
    ]
    frame = pd.DataFrame(rows).astype(dict.fromkeys(TEXTS, "string"))
    frame.attrs = {
        KEY: {
            "unit": "nats",
            "label_with": "paraphrase" if isinstance(label_with, Mapping) else intervention.name,
            "intervention": intervention.describe(),
            "layer": middle[0],
            "n_tokens": n_tokens,
            "prepend_bos": bos,
            "seed": seed,
            "model": describe(model),
            "versions": versions(),
        }
    }
    return frame


def _paraphrases(prompts: Sequence[Prompt], given: object) -> list[Prompt]:
    """The prompts that reliance is measured on, under the ids of the originals."""
    if not isinstance(given, Mapping):
        raise InputError(f"label_with is {given!r}; give an intervention, or paraphrases by id")
    ids = [str(one.id) for one in prompts]
    missing = [name for name in ids if name not in given]
    if missing:
        raise InputError(
            f"label_with has no paraphrase for {len(missing)} prompts, first {missing[0]!r}; give "
            "each prompt one, or leave it out of the prompts"
        )
    foreign = [name for name in given if name not in ids]
    if foreign:
        raise InputError(f"label_with has a paraphrase for {foreign[0]!r}, which is no prompt here")
    return [given[name].replace(id=name) for name in ids]


def _note(prompt: Prompt, model: TransformerBridge, bos: bool) -> str | None:
    """Why a prompt cannot have a reliance, or None where it can."""
    if "subject" not in prompt.spans:
        return NO_SUBJECT
    tokens = tokenize_prompt(prompt, model.tokenizer, bos)
    return SUBJECT_IS_LAST if len(tokens) - 1 in resolve(prompt, tokens, "subject") else None


def _certainty(model: TransformerBridge, ready: Sequence[Prepared]) -> dict[str, dict[str, float]]:
    """Entropy (nats) and largest probability of the next token, by prompt id."""
    found: dict[str, dict[str, float]] = {}
    for batch in batches(ready):
        kept: Any = record(model, ids_of(model, batch), measured=slice(-1, None), keep_kv=False)
        logp = kept.logits[:, -1].to("cpu", torch.float64).log_softmax(-1)
        p = logp.exp()
        told = zip(torch.special.entr(p).sum(-1).tolist(), p.amax(-1).tolist(), strict=True)
        for one, (entropy, top) in zip(batch, told, strict=True):
            found[str(one.prompt.id)] = {"entropy": entropy, "p_top": top}
    return found
