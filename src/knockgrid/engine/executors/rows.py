"""Which cells share a pass, and which row of it is theirs."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import psutil
import torch
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.engine.executors.executor import Item
from knockgrid.engine.memory import LEAST
from knockgrid.host.sizes import Sizes, pass_tokens, sizes_of
from knockgrid.passes.run import Run, input_device

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


def layout(start: int, chosen: Sequence[Item], nulls: bool = True) -> Plan:
    """Give every item of a pass its rows; without null rows, all of them enter with the tokens."""
    null_row = {run: i for i, run in enumerate(dict.fromkeys(item.run for item in chosen))}
    row_prompt, row, entries = list(null_row.values()) if nulls else [], {}, {}
    for item in sorted(chosen, key=entry):
        first = len(row_prompt)
        row[id(item)] = first
        row_prompt += [null_row[item.run]] * item.cell.n_rows
        begin = entries.get(entry(item), (first, first))[0]
        if nulls:
            entries[entry(item)] = (begin, len(row_prompt))
    return Plan(start, chosen, null_row, row, row_prompt, entries)


def plans(
    model: TransformerBridge,
    runs: Sequence[Run],
    todo: Sequence[Item],
    max_rows: int | None,
    max_bytes: int | None = None,
    lift: bool = False,
) -> Iterator[Plan]:
    """Group items by length and first position, and cut the groups to the memory budget."""
    groups: dict[tuple[int, int], dict[int, list[Item]]] = {}
    for item in todo:
        run = runs[item.run]
        # A pass measures from the last prompt token on, so it begins there at the latest.
        start = item.edits[0].pos[-1] + 1 if lift and item.edits[0].prefix else item.start
        start = min(start, run.n_prompt - 1)
        groups.setdefault((len(run.ids), run.n_prompt), {}).setdefault(start, []).append(item)
    for (length, n_prompt), by_start in groups.items():

        def most(start: int, length: int = length, n_prompt: int = n_prompt) -> int:
            n_tokens, bounds = length - n_prompt + 1, (max_rows, max_bytes)
            return rows_at_once(model, length, length - start, n_tokens, bounds)

        for start, group in joined(by_start, length, int(model.cfg.n_layers), most, passing(model)):
            for part in split(group, most(start)):
                yield layout(start, part)


passing = pass_tokens


def joined(
    by_start: Mapping[int, Sequence[Item]],
    length: int,
    n_layers: int,
    most: Callable[[int], int],
    each: float,
    with_nulls: bool = True,
) -> Iterator[tuple[int, list[Item]]]:
    """Groups of items and the first positions of their passes, at the least cost in tokens.

    A pass costs what `each` tokens do, and its rows (`most` of them, at most) cost their tokens.
    Items that begin later may join one that begins earlier where that reads the weights less often.
    """
    starts = sorted(by_start)
    runs = [{item.run for item in by_start[start]} for start in starts]
    rows = [sum(item.cell.n_rows for item in by_start[start]) for start in starts]
    share = [
        sum(item.cell.n_rows * (1 - sum(entry(item)) / n_layers) for item in by_start[start])
        for start in starts
    ]
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(starts) + 1):
        options = []
        for first in range(end):
            suffix, here = length - starts[first], slice(first, end)
            nulls = len(set[int]().union(*runs[here])) * with_nulls
            passes = -(-sum(rows[here]) // max(1, most(starts[first]) - nulls))
            cost = passes * (each + suffix * nulls) + suffix * sum(share[here])
            options.append((best[first][0] + cost, first))
        best.append(min(options))
    cuts = [len(starts)]
    while cuts[-1]:
        cuts.append(best[cuts[-1]][1])
    for end, first in zip(reversed(cuts[:-1]), reversed(cuts[1:]), strict=True):
        yield starts[first], [item for start in starts[first:end] for item in by_start[start]]


def split(group: Sequence[Item], limit: int, nulls: bool = True) -> Iterator[list[Item]]:
    """Parts of at most `limit` rows, null rows included, prompt after prompt."""
    part: list[Item] = []
    rows, seen = 0, set[int]()
    for item in sorted(group, key=lambda item: item.run):
        extra = item.cell.n_rows + (nulls and item.run not in seen)
        if part and rows + extra > limit:
            yield part
            part, rows, seen = [], 0, set()
            extra = item.cell.n_rows + nulls
        part.append(item)
        rows += extra
        seen.add(item.run)
    if part:
        yield part


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return int(psutil.virtual_memory().available)


def rows_at_once(
    model: TransformerBridge,
    length: int,
    suffix: int,
    n_tokens: int,
    bounds: tuple[int | None, int | None],
    cached: int = 0,
) -> int:
    """Rows per pass, within the bounds and a quarter of free memory; each keeps `cached` bytes."""
    device, sizes = input_device(model), sizes_of(model)
    each = sizes.row(length, suffix, n_tokens) + cached
    max_rows, max_bytes = bounds
    rows = max_rows or fast_rows(sizes, length, device.type)
    rows = min(rows, free_bytes(device) // 4 // each)
    if max_bytes is not None:
        rows = min(rows, max_bytes // each)
    return int(max(LEAST, rows))


def fast_rows(sizes: Sizes, length: int, device: str) -> int:
    """Rows beyond which a pass gains nothing.

    On a CPU the gathered keys of one block stay near 32 MiB: on the demo model passes of 120 tokens
    are 7 % faster in parts of 120 rows than in one of 1000 (large buffers are fetched anew from the
    system at every block), while short ones want many rows.
    """
    keys = 4 * sizes.n_heads * sizes.d_head * length
    return min(1024, max(64, 2**25 // keys)) if device == "cpu" else 8192


def widest(plans: Iterable[Plan]) -> int:
    """The rows of the widest pass."""
    return max((len(plan.row_prompt) for plan in plans), default=0)
