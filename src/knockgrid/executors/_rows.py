"""Which cells share a pass, and which row of it is theirs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import psutil
import torch
from transformer_lens.model_bridge import TransformerBridge

from knockgrid._executor import Item
from knockgrid._run import Run, input_device

Entry = tuple[int, bool]


@dataclass(frozen=True, eq=False)
class Plan:
    """One pass: its first position, its items and the layout of its rows.

    Rows 0 to P - 1 are the null rows of P prompts, `null_row[run]`; the others follow in the order
    in which they enter. `entries` maps (layer, after the block?) to the rows that enter there,
    `row_prompt` maps every row to the null row it forks from.
    """

    start: int
    items: Sequence[Item]
    null_row: Mapping[int, int]
    row: Mapping[int, int]
    row_prompt: Sequence[int]
    entries: Mapping[Entry, tuple[int, int]]


def entry(item: Item) -> Entry:
    """Where an item forks from the null row: before the first block it edits, or right after it."""
    return min((edit.layer, edit.act_name == "resid_post") for edit in item.edits)


def layout(start: int, chosen: Sequence[Item]) -> Plan:
    """Give every item of a pass its rows."""
    null_row = {run: i for i, run in enumerate(dict.fromkeys(item.run for item in chosen))}
    row_prompt, row, entries = list(null_row.values()), {}, {}
    for item in sorted(chosen, key=entry):
        first = len(row_prompt)
        row[id(item)] = first
        row_prompt += [null_row[item.run]] * item.cell.n_rows
        begin = entries.get(entry(item), (first, first))[0]
        entries[entry(item)] = (begin, len(row_prompt))
    return Plan(start, chosen, null_row, row, row_prompt, entries)


def plans(
    model: TransformerBridge, runs: Sequence[Run], todo: Sequence[Item], max_rows: int | None
) -> Iterator[Plan]:
    """Group items by length and first position, and cut the groups to the memory budget."""
    groups: dict[tuple[int, int, int], list[Item]] = {}
    for item in todo:
        run = runs[item.run]
        # A pass measures from the last prompt token on, so it begins there at the latest.
        start = min(item.start, run.n_prompt - 1)
        groups.setdefault((len(run.ids), run.n_prompt, start), []).append(item)
    for (length, _, start), group in groups.items():
        n_tokens = runs[group[0].run].n_tokens
        limit = max_rows or budget(model, length, length - start, n_tokens)
        for part in split(group, max(2, limit)):
            yield layout(start, part)


def split(group: Sequence[Item], limit: int) -> Iterator[list[Item]]:
    """Parts of at most `limit` rows, null rows included, prompt after prompt."""
    part: list[Item] = []
    rows, seen = 0, set[int]()
    for item in sorted(group, key=lambda item: item.run):
        extra = item.cell.n_rows + (item.run not in seen)
        if part and rows + extra > limit:
            yield part
            part, rows, seen = [], 0, set()
            extra = item.cell.n_rows + 1
        part.append(item)
        rows += extra
        seen.add(item.run)
    if part:
        yield part


def bytes_per_row(model: TransformerBridge, length: int, suffix: int, n_tokens: int) -> int:
    """An upper estimate of the memory that one row needs while a pass is in one block.

    Residual, normed input, q, k, v, mixed heads and the gated MLP per suffix token; scores and
    pattern per head; gathered keys and values of the whole length, once more for grouped heads;
    logits and their float32 copy at the measured tokens.
    """
    cfg = model.cfg
    d_mlp = int(getattr(cfg, "d_mlp", None) or 4 * cfg.d_model)
    size = torch.finfo(next(model.original_model.parameters()).dtype).bits // 8
    heads, wide = int(cfg.n_heads), int(cfg.n_heads) * int(cfg.d_head)
    per_token = 6 * int(cfg.d_model) + 4 * wide + 4 * d_mlp
    scores = 4 * heads * suffix * length
    cache = 4 * wide * length
    return (per_token * suffix + scores + cache) * size + n_tokens * int(cfg.d_vocab) * (size + 4)


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return int(psutil.virtual_memory().available)


def budget(model: TransformerBridge, length: int, suffix: int, n_tokens: int) -> int:
    """Rows per pass: a quarter of free memory, and on a CPU as many as stay fast.

    There the gathered keys of one block are kept near 32 MiB: measured on the demo model, passes
    of 120 tokens are 7 % faster in parts of 120 rows than in one of 1000, since large buffers are
    fetched anew from the system at every block, while short ones want many rows.
    """
    device = input_device(model)
    rows = free_bytes(device) // 4 // bytes_per_row(model, length, suffix, n_tokens)
    ceiling = 8192
    if device.type == "cpu":
        keys = 4 * int(model.cfg.n_heads) * int(model.cfg.d_head) * length
        ceiling = min(1024, max(64, 2**25 // keys))
    return int(max(2, min(rows, ceiling)))
