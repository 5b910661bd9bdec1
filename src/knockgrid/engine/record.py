"""Record: the clean runs of a batch, and the runs that sources take their values from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.edits.intervention import Intervention
from knockgrid.edits.layers import layer_set
from knockgrid.engine.memory import is_out_of_memory, release
from knockgrid.engine.settings import Settings
from knockgrid.errors import InputError
from knockgrid.host.bridge import has_hook, n_layers
from knockgrid.host.cache import Cache
from knockgrid.host.sizes import pass_tokens
from knockgrid.passes.answer_positions import answer_positions
from knockgrid.passes.prepared import Prepared, ids_of
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
from knockgrid.prompts.positions import Tokens, resolve, tokenize
from knockgrid.sources.source import RunSpec, normal

Key = TypeVar("Key")
MIDDLE = ("resid_pre", "attn_out")
"""What the stream between attention and MLP is the sum of."""


def sites_of(model: TransformerBridge, settings: Settings) -> list[Site]:
    """Every activation a sweep needs recorded, the residual entering block 0 included."""
    sites: dict[Site, None] = {("resid_pre", 0): None}
    for one in settings.interventions:
        for layer in settings.layers:
            for inside in layer_set(one.window, layer, n_layers(model)):
                names = [name for act_name, _ in one.sites for name in needed(act_name)]
                sites.update({(n, inside): None for n in names if has_hook(model, n, inside)})
    return list(sites)


def needed(act_name: str) -> tuple[str, ...]:
    """An activation, and what it is checked against."""
    return (act_name, *MIDDLE) if act_name == "resid_mid" else (act_name,)


def record_clean(
    model: TransformerBridge, batch: Sequence[Prepared], settings: Settings
) -> list[Run]:
    """The clean runs of a batch, over the prompts and their greedy continuation."""
    return record_runs(model, outlines(model, batch, settings), (), settings)[0]


def outlines(model: TransformerBridge, batch: Sequence[Prepared], settings: Settings) -> list[Run]:
    """The clean runs of a batch before they are recorded: their tokens and named positions."""
    n_prompt = len(batch[0].tokens)
    ids = continue_greedily(model, ids_of(model, batch), settings.n_tokens - 1)
    valid, logits = count_valid(model, ids[:, n_prompt:]), torch.empty(settings.n_tokens, 0)
    runs = [
        Run(one.prompt, one.tokens, ids[i], {}, [], logits, valid[i]) for i, one in enumerate(batch)
    ]
    return [replace(run, named=_named(model, run)) for run in runs]


def _named(model: TransformerBridge, run: Run) -> dict[str, int]:
    """Positions by their role in the answer; an end-of-text token is no part of it."""
    output = run.ids[run.n_prompt :].tolist()[: run.n_valid]
    if output and output[-1] == getattr(model.tokenizer, "eos_token_id", None):
        output = output[:-1]
    return answer_positions(model.tokenizer, run.prompt, output, run.n_prompt)


def record_full(
    model: TransformerBridge,
    ids: Tensor,
    n_prompt: int,
    settings: Settings,
    noise: Tensor | None = None,
    past: Cache | None = None,
) -> Recording:
    """One recorded pass, with noise `[batch, pos, d_model]` on the embeddings if there is any.

    Raises:
        InputError: an activation that is edited never fires, or is not as its edits need it.
    """
    recording = record(
        model,
        ids,
        measured=slice(n_prompt - 1, None),
        sites=sites_of(model, settings),
        noise=noise,
        keep_kv=settings.keep_kv,
        edges=past is None and any(one.edges for one in settings.interventions),
        past=past,
    )
    check_layout(model, recording.acts, ids.shape[1], settings)
    return recording


def check_layout(
    model: TransformerBridge, acts: Mapping[Site, Tensor], n: int, settings: Settings
) -> None:
    """Refuse a recorded activation that is not `[batch, pos, ...]`, or lacks the heads asked for.

    Raises:
        InputError: one that never fires, or is laid out in another way.
    """
    edited = {name for one in settings.interventions for name, _ in one.sites}
    for act_name, layer in sites_of(model, settings):
        if act_name not in edited:
            continue
        what = f"activation {act_name!r} of {model.cfg.architecture}"
        if (act_name, layer) not in acts:
            raise InputError(
                f"{what} never fires at layer {layer}, so it can be neither read nor edited; "
                "leave it out, other kinds are not affected"
            )
        shape = tuple(acts[act_name, layer].shape)
        if len(shape) < 3 or shape[1] != n:
            raise InputError(
                f"{what} has shape {shape} for {n} tokens, not [batch, pos, ...], so it cannot "
                "be edited by position; leave it out, other kinds are not affected"
            )
        check_heads(settings.interventions, act_name, shape[2] if len(shape) > 3 else 0, what)
        if act_name == "resid_mid" and not _is_sum(acts, layer):
            raise InputError(
                f"{what} is not the sum of 'resid_pre' and 'attn_out' at layer {layer}, so the "
                "stream there cannot be replaced; leave it out, other kinds are not affected"
            )


def _is_sum(acts: Mapping[Site, Tensor], layer: int | None) -> bool:
    """Whether the stream between attention and MLP is what enters the block and attention adds."""
    parts = [acts[name, layer] for name in MIDDLE if (name, layer) in acts]
    mid = acts["resid_mid", layer]
    within = 8 * torch.finfo(mid.dtype).eps * mid.abs().max()
    return len(parts) == len(MIDDLE) and bool((mid - sum(parts)).abs().max() <= within)


def check_heads(
    interventions: Sequence[Intervention], act_name: str, heads: int, what: str
) -> None:
    """Refuse heads that an activation does not have; 0 of them where it has none at all.

    Raises:
        InputError: an intervention names one.
    """
    for one in interventions:
        if one.heads and not one.edges and act_name in {name for name, _ in one.sites}:
            if not heads:
                raise InputError(f"{what} has no heads; give {one.name!r} without heads=")
            if max(one.heads) >= heads:
                raise InputError(
                    f"intervention {one.name!r} names head {max(one.heads)}, and {what} has heads "
                    f"0 to {heads - 1}"
                )


def embedding_noise(
    run: Run, spec: RunSpec, settings: Settings, sample: int, d_model: int
) -> Tensor:
    """Noise `[pos, d_model]`, zero outside its place; keyed by prompt, scale, place and sample."""
    if not spec.scale:
        return torch.zeros(len(run.ids), d_model, dtype=torch.float32, device="cpu")
    pos = list(resolve(run.prompt, run.tokens, spec.pos))
    key = (settings.seed, run.prompt.id, "embed", spec.scale, spec.scale_from, sample)
    if spec.pos != "subject":
        key += (spec.pos,)
    noise = torch.zeros(len(run.ids), d_model, dtype=torch.float32, device="cpu")
    noise[pos] = spec.scale * settings.sigma[spec.scale_from] * normal((len(pos), d_model), key)
    return noise


@dataclass(frozen=True, eq=False)
class SourceRun:
    """One extra run to be recorded: for which base run, what, and which draw of it."""

    run: Run
    spec: RunSpec
    sample: int


def _source_ids(
    model: TransformerBridge, wanted: SourceRun, prepend_bos: bool
) -> tuple[Tokens, Tensor]:
    """The source's tokens, and its ids followed by the clean continuation of the base run."""
    run, spec = wanted.run, wanted.spec
    if spec.prompt is run.prompt:
        return run.tokens, run.ids
    tokens = tokenize(spec.prompt.text, model.tokenizer, prepend_bos)
    check_length(model, spec.prompt, len(tokens) + len(run.ids) - run.n_prompt)
    own = torch.tensor(tokens.ids).to(run.ids.device)
    return tokens, torch.cat([own, run.ids[run.n_prompt :]])


def record_runs(
    model: TransformerBridge,
    clean: Sequence[Run],
    wanted: Sequence[SourceRun],
    settings: Settings,
) -> tuple[list[Run], list[Run]]:
    """Clean runs, recorded from their outlines, and the source runs that are wanted of them.

    One pass records both, unless sources that begin late make two cheaper: a short pass takes as
    long as it takes to read the weights.
    """
    given = [_source_ids(model, one, settings.prepend_bos) for one in wanted]
    both = bool(wanted) and _in_one_pass(model, clean, wanted, given, settings)
    some = list(wanted) if both else []
    ids = torch.stack([*(run.ids for run in clean), *(own for _, own in given[: len(some)])])
    noise = _noise_of(model, some, settings, ids)
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
    runs = unbatch(
        recording,
        [*(run.prompt for run in clean), *(one.spec.prompt for one in some)],
        [*(run.tokens for run in clean), *(tokens for tokens, _ in given[: len(some)])],
        ids,
        [*(run.n_valid for run in clean), *(one.run.n_valid for one in some)],
        noise,
    )
    pairs = zip(clean, runs, strict=False)
    found = [replace(run, named=one.named, noise=None) for one, run in pairs]
    if both or not wanted:
        return found, list(map(_placed, runs[len(clean) :], wanted))
    place = {id(run): i for i, run in enumerate(clean)}
    told = [replace(one, run=found[place[id(one.run)]]) for one in wanted]
    return found, record_sources(model, told, settings)


def _in_one_pass(
    model: TransformerBridge,
    clean: Sequence[Run],
    wanted: Sequence[SourceRun],
    given: Sequence[tuple[Tokens, Tensor]],
    settings: Settings,
) -> bool:
    """Whether source runs are as long as the clean ones, and cost less in their pass."""
    if not settings.keep_kv:  # of a pass on its own, a source is the reference's to the last digits
        return False
    length, n_prompt, most = len(clean[0].ids), clean[0].n_prompt, settings.rows_recorded
    pairs = list(zip(wanted, given, strict=True))
    if any((len(ids), len(tokens)) != (length, n_prompt) for tokens, ids in given):
        return False
    if most is not None and len(clean) + len(wanted) > most:
        return False
    # Experts round by what else is in the batch, and a run over the same tokens is to be the same.
    if any(not one.spec.scale and torch.equal(ids, one.run.ids) for one, (_, ids) in pairs):
        return False
    starts = [_suffix_start(one, *own) for one, own in pairs]
    return sum(starts) <= len(set(starts)) * pass_tokens(model)


def _suffix_start(wanted: SourceRun, tokens: Tokens, ids: Tensor) -> int:
    """The first token at which a source's run can differ from its base run, within its prompt."""
    run, spec = wanted.run, wanted.spec
    at = spec.pos if spec.scale else "subject"
    if at == "subject" and "subject" not in run.prompt.spans:
        return 0
    start = min(resolve(run.prompt, run.tokens, at)[0], len(tokens) - 1)
    return start if ids[:start].tolist() == run.ids[:start].tolist() else 0


def record_sources(
    model: TransformerBridge, wanted: Sequence[SourceRun], settings: Settings
) -> list[Run]:
    """The extra runs that sources ask for, in batches of equal length, over suffixes only.

    They follow the clean continuation of their base run. What comes before the subject is that of
    the base run, keys and values included, if that kept any.
    """
    found: dict[int, Run] = {}
    groups: dict[tuple[int, int, int], list[int]] = {}
    given = [_source_ids(model, one, settings.prepend_bos) for one in wanted]
    for i, (tokens, ids) in enumerate(given):
        start = _suffix_start(wanted[i], tokens, ids) if wanted[i].run.kv else 0
        key = (len(ids), len(tokens), start)
        groups.setdefault(key, []).append(i)
    for (_, n_prompt, start), members in parts(groups, settings.rows_recorded):
        some = [wanted[i] for i in members]
        ids = torch.stack([given[i][1] for i in members])
        noise = _noise_of(model, some, settings, ids)
        runs = _record_suffix(model, some, ids, n_prompt, start, settings, noise)
        tokens = [given[i][0] for i in members]
        valid = [one.run.n_valid for one in some]
        made = unbatch(runs, [one.spec.prompt for one in some], tokens, ids, valid, noise)
        found.update(zip(members, map(_placed, made, some), strict=True))
    return [found[i] for i in range(len(wanted))]


def parts(groups: Mapping[Key, Sequence[int]], most: int | None) -> Iterator[tuple[Key, list[int]]]:
    """The members of every group, at most so many at once.

    Example:
        >>> list(parts({"a": [0, 1, 2], "b": [3]}, most=2))
        [('a', [0, 1]), ('a', [2]), ('b', [3])]
    """
    for key, members in groups.items():
        size = most or len(members)
        for i in range(0, len(members), size):
            yield key, list(members[i : i + size])


def _placed(run: Run, wanted: SourceRun) -> Run:
    """A source's run with the answer positions of the run whose continuation it follows."""
    base, by = wanted.run, run.n_prompt - wanted.run.n_prompt
    return replace(run, named={name: at + by for name, at in base.named.items()})


def _noise_of(
    model: TransformerBridge, some: Sequence[SourceRun], settings: Settings, ids: Tensor
) -> Tensor | None:
    """The noise of a batch `[batch, pos, d_model]`, or None where no run has any."""
    if not any(one.spec.scale for one in some):
        return None
    d_model = int(model.cfg.d_model)
    noise = [embedding_noise(one.run, one.spec, settings, one.sample, d_model) for one in some]
    return torch.stack(noise).to(ids.device)


def _record_suffix(
    model: TransformerBridge,
    some: Sequence[SourceRun],
    ids: Tensor,
    n_prompt: int,
    start: int,
    settings: Settings,
    noise: Tensor | None,
) -> Recording:
    """One batch of source runs from position `start` on, completed with their base runs."""
    noise = None if noise is None else noise[:, start:]
    past = prefilled([one.run for one in some], start) if start else None
    suffix = record_full(model, ids[:, start:], n_prompt - start, settings, noise, past)
    if not start:
        return suffix
    acts = {
        site: torch.cat([torch.stack([one.run.acts[site][:start] for one in some]), act], dim=1)
        for site, act in suffix.acts.items()
    }
    return replace(suffix, acts=acts)
