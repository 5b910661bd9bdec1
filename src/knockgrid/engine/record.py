"""Record: the clean runs of a batch, and the runs that sources take their values from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.edits.intervention import Intervention
from knockgrid.engine.memory import is_out_of_memory, release
from knockgrid.engine.settings import Settings
from knockgrid.errors import InputError
from knockgrid.host.bridge import has_hook, n_layers
from knockgrid.host.cache import Cache
from knockgrid.host.sizes import pass_tokens
from knockgrid.passes.answer_positions import answer_positions, steps, steps_in
from knockgrid.passes.chunked import record_states
from knockgrid.passes.prepared import Prepared, whole_ids
from knockgrid.passes.run import (
    Recording,
    Run,
    Site,
    check_length,
    continue_greedily,
    count_valid,
    prefilled,
    record,
    unbatch,
)
from knockgrid.prompts.positions import resolve, tokenize_prompt
from knockgrid.sources.source import RunSpec, normal

MIDDLE = ("resid_pre", "attn_out")
"""What the stream between attention and MLP is the sum of."""


def sites_of(model: TransformerBridge, settings: Settings) -> list[Site]:
    """Every activation a sweep needs recorded, the residual entering block 0 included."""
    sites: dict[Site, None] = {("resid_pre", 0): None}
    for one, layers in settings.layers_of(n_layers(model)):
        names = [act_name for act_name, _ in one.sites]
        names += MIDDLE if "resid_mid" in names else ()
        inside = set(layers)
        inside |= set() if (at := one.source and one.source.run_layer) is None else {at}
        for at in sorted(inside):
            sites.update({(n, at): None for n in names if has_hook(model, n, at)})
    return list(sites)


def record_clean(
    model: TransformerBridge, batch: Sequence[Prepared], settings: Settings
) -> list[Run]:
    """The clean runs of a batch, over the prompts and their greedy continuation."""
    return record_runs(model, outlines(model, batch, settings), (), settings)[0]


def outlines(model: TransformerBridge, batch: Sequence[Prepared], settings: Settings) -> list[Run]:
    """The clean runs of a batch before they are recorded: their tokens and answer positions."""
    n_prompt, end = len(batch[0].tokens), getattr(model.tokenizer, "eos_token_id", None)
    ids, valid = whole_ids(model, batch), [len(one.tokens.given) for one in batch]
    if not any(valid):
        ids = continue_greedily(model, ids, settings.n_tokens - 1)
        valid = count_valid(model, ids[:, n_prompt:])
    logits, tokenizer = torch.empty(settings.n_tokens, 0), model.tokenizer
    outputs = [row[:n] for row, n in zip(ids[:, n_prompt:].tolist(), valid, strict=True)]
    # the end of the text is no part of the answer
    outputs = [ids[:-1] if ids and ids[-1] == end else ids for ids in outputs]
    said = [(b.prompt, ids, tokenizer.decode(ids)) for b, ids in zip(batch, outputs, strict=True)]
    exact = settings.exact.found(model, said, settings.prepend_bos)
    found = []
    for i, one in enumerate(batch):
        named = answer_positions(tokenizer, one.prompt, outputs[i], n_prompt, exact[i])
        named |= steps(n_prompt, settings.n_tokens) if settings.writes else {}
        about = {"named": named, "exact": exact[i]}
        found.append(Run(one.prompt, one.tokens, ids[i], {}, [], logits, valid[i], **about))
    return found


def record_full(
    model: TransformerBridge,
    ids: Tensor,
    n_prompt: int,
    settings: Settings,
    noise: Tensor | None = None,
    past: Cache | None = None,
) -> Recording:
    """One recorded pass, with noise `[batch, pos, d_model]` on the embeddings if there is any."""
    sites, edges = sites_of(model, settings), any(one.edges for one in settings.parts)
    kept: dict[str, Any] = {"sites": sites, "noise": noise, "keep_kv": settings.keep_kv}
    if settings.anywhere:
        kept["all_logits"] = settings.all_logits
        recording = record_states(model, ids, n_prompt, edges=edges, **kept)
    else:
        measured, edges = slice(n_prompt - 1, None), edges and past is None
        recording = record(model, ids, measured=measured, edges=edges, past=past, **kept)
    check_layout(model, recording.acts, ids.shape[1], settings)
    return recording


def check_layout(
    model: TransformerBridge, acts: Mapping[Site, Tensor], n: int, settings: Settings
) -> None:
    """Refuse a recorded activation that edits cannot be made in as they need it."""
    edited = {name for one in settings.interventions for name, _ in one.sites}
    for act_name, layer in sites_of(model, settings):
        if act_name not in edited:
            continue
        what, fault = f"activation {act_name!r} of {model.cfg.architecture}", ""
        if (act_name, layer) not in acts:
            fault = f"never fires at layer {layer}, so it can be neither read nor edited"
        elif acts[act_name, layer].ndim < 3 or acts[act_name, layer].shape[1] != n:
            fault = (
                f"has shape {tuple(acts[act_name, layer].shape)} for {n} tokens, not "
                "[batch, pos, ...], so it cannot be edited by position"
            )
        else:
            shape = acts[act_name, layer].shape
            check_heads(settings.parts, act_name, shape[2] if len(shape) > 3 else 0, what)
            if act_name == "resid_mid" and not _is_sum(acts, layer):
                fault = (
                    f"is not the sum of 'resid_pre' and 'attn_out' at layer {layer}, so the "
                    "stream there cannot be replaced"
                )
        if fault:
            raise InputError(f"{what} {fault}; leave it out, other kinds are not affected")


def _is_sum(acts: Mapping[Site, Tensor], layer: int | None) -> bool:
    """Whether the stream between attention and MLP is what enters the block and attention adds."""
    parts = [acts[name, layer] for name in MIDDLE if (name, layer) in acts]
    mid = acts["resid_mid", layer]
    within = 8 * torch.finfo(mid.dtype).eps * mid.abs().max()
    return len(parts) == len(MIDDLE) and bool((mid - sum(parts)).abs().max() <= within)


def check_heads(
    interventions: Sequence[Intervention], act_name: str, heads: int, what: str
) -> None:
    """Refuse heads that an activation does not have; 0 of them where it has none at all."""
    for one in interventions:
        if one.heads and not one.edges and act_name in {name for name, _ in one.sites}:
            if not heads:
                raise InputError(f"{what} has no heads; give {one.name!r} without heads=")
            if max(one.heads) >= heads:
                raise InputError(
                    f"intervention {one.name!r} names head {max(one.heads)}, and {what} has heads "
                    f"0 to {heads - 1}"
                )


@dataclass(frozen=True, eq=False)
class SourceRun:
    """One extra run to be recorded.

    Its outline follows its own continuation where one is given, else the one of its base run.
    """

    run: Run
    spec: RunSpec
    sample: int
    outline: Run


def source_run(
    model: TransformerBridge, run: Run, spec: RunSpec, sample: int, settings: Settings
) -> SourceRun:
    """What is to be recorded for a source."""
    outline = run
    if spec.prompt is not run.prompt:
        tokens = tokenize_prompt(spec.prompt, model.tokenizer, settings.prepend_bos)
        by, own, given = len(tokens) - run.n_prompt, run.ids[run.n_prompt :], tokens.given
        if settings.writes:  # a donor is read as far as texts are written
            given = given[: settings.n_tokens - 1]
        if tokens.given:
            if not settings.writes and len(given) != len(run.tokens.given):
                raise InputError(
                    f"prompt {run.prompt.id!r} is followed by {len(run.tokens.given)} given tokens "
                    f"and its donor {spec.prompt.id!r} by {len(tokens.given)}; give both a "
                    "continuation of one length, or the donor none"
                )
            own = torch.tensor(given, dtype=torch.long).to(run.ids.device)
        check_length(model, spec.prompt, len(tokens) + len(own))
        ids = torch.cat([torch.tensor(tokens.ids).to(run.ids.device), own])
        named = {name: at + by for name, at in run.named.items() if not steps_in(name)}
        named |= steps(len(tokens), len(given) + 1) if settings.writes else {}
        outline = replace(run, prompt=spec.prompt, tokens=tokens, ids=ids, named=named)
    return SourceRun(run, spec, sample, outline)


def _noise_of(
    model: TransformerBridge, some: Sequence[SourceRun], settings: Settings, device: torch.device
) -> Tensor | None:
    """The noise of a batch `[batch, pos, d_model]`, 0 outside its place; None if no run has any."""
    if not any(one.spec.scale for one in some):
        return None
    size = (len(some), len(some[0].run.ids), int(model.cfg.d_model))
    noise = torch.zeros(size, dtype=torch.float32, device="cpu")
    for row, one in zip(noise, some, strict=True):
        run, spec = one.run, one.spec
        if spec.scale:
            pos = list(resolve(run.prompt, run.tokens, spec.pos))
            key = (settings.seed, run.prompt.id, "embed", spec.scale, spec.scale_from, one.sample)
            key += (spec.pos,) if spec.pos != "subject" else ()
            drawn = normal((len(pos), size[-1]), key)
            row[pos] = spec.scale * settings.sigma[spec.scale_from] * drawn
    return noise.to(device)


def record_runs(
    model: TransformerBridge, clean: Sequence[Run], wanted: Sequence[SourceRun], settings: Settings
) -> tuple[list[Run], list[Run]]:
    """Clean runs, recorded from their outlines, and the source runs that are wanted of them.

    One pass records both, unless sources that begin late make two cheaper: a short pass takes as
    long as it takes to read the weights.
    """
    both = bool(wanted) and _in_one_pass(model, clean, wanted, settings)
    some = list(wanted) if both else []
    every = [*clean, *(one.outline for one in some)]
    ids = torch.stack([run.ids for run in every])
    noise = _noise_of(model, some, settings, ids.device)
    if noise is not None:
        noise = torch.cat([noise.new_zeros(len(clean), *noise.shape[1:]), noise])
    try:
        recording = record_full(model, ids, clean[0].n_prompt, settings, noise)
    except Exception as error:
        if not both or not is_out_of_memory(error):
            raise
        recording = None
    if recording is None:  # only here is the traceback gone, whose frames hold what failed
        release()
        return record_runs(model, clean, wanted, replace(settings, rows_recorded=len(clean)))
    runs = unbatch(recording, every, noise)
    found = [replace(run, noise=None) for run in runs[: len(clean)]]
    if both or not wanted:
        return found, runs[len(clean) :]
    place = {id(run): i for i, run in enumerate(clean)}
    told = [replace(one, run=found[place[id(one.run)]]) for one in wanted]
    return found, record_sources(model, told, settings)


def _in_one_pass(
    model: TransformerBridge, clean: Sequence[Run], wanted: Sequence[SourceRun], settings: Settings
) -> bool:
    """Whether source runs are as long as the clean ones, and cost less in their pass."""
    if not settings.keep_kv:  # of a pass on its own, a source is the reference's to the last digits
        return False
    size, most = (len(clean[0].ids), clean[0].n_prompt), settings.rows_recorded
    if any((len(one.outline.ids), one.outline.n_prompt) != size for one in wanted):
        return False
    if most is not None and len(clean) + len(wanted) > most:
        return False
    # Experts round by what else is in the batch, and a run over the same tokens is to be the same.
    if any(not one.spec.scale and torch.equal(one.outline.ids, one.run.ids) for one in wanted):
        return False
    starts = [_suffix_start(one) for one in wanted]
    return sum(starts) <= len(set(starts)) * pass_tokens(model)


def _suffix_start(wanted: SourceRun) -> int:
    """The first token at which a source's run can differ from its base run, within its prompt."""
    run, spec, own = wanted.run, wanted.spec, wanted.outline
    at = spec.pos if spec.scale else "subject"
    if at == "subject" and "subject" not in run.prompt.spans:
        return 0
    start = min(resolve(run.prompt, run.tokens, at)[0], own.n_prompt - 1)
    return start if own.ids[:start].tolist() == run.ids[:start].tolist() else 0


def record_sources(
    model: TransformerBridge, wanted: Sequence[SourceRun], settings: Settings
) -> list[Run]:
    """The runs that sources ask for, by equal length, each from where it leaves its base run."""
    groups: dict[tuple[int, int, int], list[SourceRun]] = {}
    for one in wanted:
        start = _suffix_start(one) if one.run.kv and not settings.anywhere else 0
        key = (len(one.outline.ids), one.outline.n_prompt, start)
        groups.setdefault(key, []).append(one)
    found: dict[int, Run] = {}
    for (_, n_prompt, start), group in groups.items():
        size = settings.rows_recorded or len(group)
        for some in (group[i : i + size] for i in range(0, len(group), size)):
            ids = torch.stack([one.outline.ids for one in some])
            noise = _noise_of(model, some, settings, ids.device)
            rest = None if noise is None else noise[:, start:]
            past = prefilled([one.run for one in some], start) if start else None
            made = record_full(model, ids[:, start:], n_prompt - start, settings, rest, past)
            if start:
                before = {s: torch.stack([o.run.acts[s][:start] for o in some]) for s in made.acts}
                acts = {site: torch.cat([before[site], act], 1) for site, act in made.acts.items()}
                made = replace(made, acts=acts)
            runs = unbatch(made, [one.outline for one in some], noise)
            found.update(zip(map(id, some), runs, strict=True))
    return [found[id(one)] for one in wanted]
