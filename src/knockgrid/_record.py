"""Record: the clean runs of a batch, and the runs that sources take their values from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from knockgrid._answer_positions import answer_positions
from knockgrid._layers import layer_set
from knockgrid._model import has_hook, hook_name, n_layers
from knockgrid._positions import Tokens, resolve, tokenize
from knockgrid._prepared import Prepared, ids_of
from knockgrid._run import (
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
from knockgrid._settings import Settings
from knockgrid._source import RunSpec, normal
from knockgrid.host.cache import Cache

Key = TypeVar("Key")


def sites_of(model: TransformerBridge, settings: Settings) -> list[Site]:
    """Every activation a sweep needs recorded, the residual entering block 0 included."""
    sites: dict[Site, None] = {("resid_pre", 0): None}
    for one in settings.interventions:
        for layer in settings.layers:
            for inside in layer_set(one.window, layer, n_layers(model)):
                sites.update(
                    {
                        (act_name, inside): None
                        for act_name, _ in one.sites
                        if has_hook(model, act_name, inside)
                    }
                )
    return list(sites)


def record_clean(
    model: TransformerBridge, batch: Sequence[Prepared], settings: Settings
) -> list[Run]:
    """The clean runs of a batch, over the prompts and their greedy continuation."""
    n_prompt = len(batch[0].tokens)
    ids = continue_greedily(model, ids_of(model, batch), settings.n_tokens - 1)
    recording = record_full(model, ids, n_prompt, settings)
    prompts = [one.prompt for one in batch]
    valid = count_valid(model, ids[:, n_prompt:])
    runs = unbatch(recording, prompts, [one.tokens for one in batch], ids, valid)
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
    """One recorded pass, with noise `[batch, pos, d_model]` on the embeddings if there is any."""
    edits = {} if noise is None else {hook_name(model, "embed"): lambda act: act + noise.to(act)}
    return record(
        model,
        ids,
        measured=slice(n_prompt - 1, None),
        sites=sites_of(model, settings),
        edits=edits,
        keep_kv=settings.keep_kv,
        edges=past is None and any(one.edges for one in settings.interventions),
        past=past,
    )


def embedding_noise(
    run: Run, spec: RunSpec, settings: Settings, sample: int, d_model: int
) -> Tensor:
    """Noise `[pos, d_model]`, zero outside its place; keyed by prompt, scale, place and sample."""
    if not spec.scale:
        return torch.zeros(len(run.ids), d_model, dtype=torch.float32, device="cpu")
    pos = list(resolve(run.prompt, run.tokens, spec.at))
    key = (settings.seed, run.prompt.id, "embed", spec.scale, spec.scale_from, sample)
    if spec.at != "subject":
        key += (spec.at,)
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


def _suffix_start(wanted: SourceRun, tokens: Tokens, ids: Tensor) -> int:
    """The first token at which a source's run can differ from its base run, within its prompt."""
    run, spec = wanted.run, wanted.spec
    at = spec.at if spec.scale else "subject"
    if not run.kv or (at == "subject" and "subject" not in run.prompt.spans):
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
        key = (len(ids), len(tokens), _suffix_start(wanted[i], tokens, ids))
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
