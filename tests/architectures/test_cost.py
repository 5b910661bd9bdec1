"""What a sweep costs: block evaluations, passes, transfers and synchronisations, counted.

With L layers, a suffix of n tokens and P prompts of equal length and first position, one row of
the table costs, next to the L P n of the null rows,

    knockout, window w      P n sum over l of (L - max(0, l - w // 2)):   L (L + 1) / 2 for w = 1
    patch `resid_post`      P n L (L - 1) / 2, as the fork comes after the block; with noise on the
                            subject, n counts from the position after it
    patch inside a block    P n L (L + 1) / 2
    edge patch              twice that of a knockout, as every cell has two rows

and rows of the table that begin at the same position share a pass and its null rows; those that
begin elsewhere do where a pass of their own would take longer than their additional tokens.
"""

from collections import Counter
from contextlib import contextmanager
from importlib import import_module

import pytest
import torch
from agree import bound
from families import DENSE
from torch.utils._python_dispatch import TorchDispatchMode

import knockgrid as kg
from knockgrid.engine.executors import rows as _rows

_staircase = import_module("knockgrid.engine.executors.staircase")
LLAMA = next(family for family in DENSE if family.name == "Llama")
L, LENGTH = 3, 9
TALLY = ("tensor", "to", "cpu", "item", "tolist", "cuda")


@pytest.fixture(autouse=True)
def passes_are_free(monkeypatch):
    """Tiny models wait for the start of operations, so all their rows would share one pass."""
    monkeypatch.setattr(_rows, "passing", lambda model: 0)


class Blocks:
    """Rows times tokens through the MLP of every block, and the tokens through the unembedding."""

    def __init__(self, model):
        self.tokens = [0] * L
        self.rows = [0] * L
        self.unembedded = self.passes = 0
        self.model = model

    def block(self, layer):
        def count(module, given, out):
            rows, tokens = given[0].shape[:2]
            self.rows[layer] += rows
            self.tokens[layer] += rows * tokens

        return count

    def unembed(self, module, given, out):
        self.passes += 1
        self.unembedded += given[0].shape[0] * given[0].shape[1]

    def __enter__(self):
        parts = [self.model.blocks[i].mlp.original_component for i in range(L)]
        self.handles = [part.register_forward_hook(self.block(i)) for i, part in enumerate(parts)]
        last = self.model.unembed.original_component
        self.handles.append(last.register_forward_hook(self.unembed))
        return self

    def __exit__(self, *exc):
        for handle in self.handles:
            handle.remove()


def counted(model, prompts, kinds, executor, **options) -> Blocks:
    """What carrying out a sweep costs, its recorded runs not included."""
    (batch,) = bound(model, prompts, kinds, **options)
    with Blocks(model) as blocks:
        list(executor(model, batch.runs, batch.cells))
    return blocks


ROWS = {
    "knockout": (kg.knockout(window=1), 1, L * (L + 1) // 2),
    "knockout, window 5": (kg.knockout(window=5), 1, L * L),  # at three layers all enter at 0
    "resid_post": (kg.patch("resid_post", "subject"), 4, L * (L - 1) // 2),
    "resid_pre": (kg.patch("resid_pre", "subject"), 4, L * (L + 1) // 2),
    "mlp_out": (kg.patch("mlp_out", "subject"), 7, L * (L + 1) // 2),
    "edge_patch": (kg.edge_patch(window=1), 1, 2 * L * (L + 1) // 2),
}


@pytest.mark.parametrize("name", ROWS)
def test_block_evaluations_of_one_row_of_the_table(name, boot, prompts):
    one, suffix, rows = ROWS[name]
    got = counted(boot(LLAMA), prompts[:1], [one], kg.executors.staircase)
    assert got.passes == 1
    assert sum(got.rows) == L + rows
    assert sum(got.tokens) == (L + rows) * suffix
    assert got.unembedded == 1 + L * one.n_rows


def test_the_batch_grows_as_the_pass_climbs(boot, prompts):
    assert counted(
        boot(LLAMA), prompts[:1], [kg.knockout(window=1)], kg.executors.staircase
    ).rows == [2, 3, 4]
    after = counted(
        boot(LLAMA), prompts[:1], [kg.patch("resid_post", "last")], kg.executors.staircase
    )
    assert after.rows == [1, 2, 3]
    flat = counted(boot(LLAMA), prompts[:1], [kg.knockout(window=1)], kg.executors.rectangle)
    assert flat.rows == [4, 4, 4]


def test_rows_that_begin_at_the_same_position_share_a_pass(boot, prompts):
    """Attention and last token; the subjects of the two prompts begin one token apart."""
    flow = kg.information_flow(window=1)
    one = counted(boot(LLAMA), prompts[:1], flow, kg.executors.staircase)
    assert one.passes == 2
    attention, last, subject = L * (L + 1) // 2, L * (L - 1) // 2, L * (L - 1) // 2
    assert sum(one.tokens) == (L + attention + last) + 4 * (L + subject)
    both = counted(boot(LLAMA), prompts, flow, kg.executors.staircase)
    assert both.passes == 3
    assert sum(both.tokens) == 2 * (L + attention + last) + (4 + 3) * (L + subject)


def test_passes_are_joined_where_that_saves_more_than_it_costs(boot, prompts, monkeypatch):
    """Three more tokens for L + attention + last rows, against one more reading of the weights."""
    flow, starts = kg.information_flow(window=1), (5, 8)
    more = (9 - starts[0] - 1) * (L * (L + 1) // 2 + L * (L - 1) // 2) / L
    for each, n in ((more - 1.1, 2), (more + 1.1, 1)):
        monkeypatch.setattr(_rows, "passing", lambda model, each=each: each)
        got = counted(boot(LLAMA), prompts[:1], flow, kg.executors.staircase)
        assert got.passes == n
    rows = L * (L + 1) // 2 + L * (L - 1)
    assert sum(got.tokens) == 4 * (L + rows)


def test_the_reference_costs_whole_sequences(boot, prompts):
    got = counted(boot(LLAMA), prompts[:1], [kg.knockout(window=1)], kg.executors.reference)
    assert got.passes == L + 1
    assert sum(got.tokens) == (L + 1) * L * LENGTH


def test_measured_tokens_lengthen_the_suffix_and_nothing_else(boot, prompts):
    got = counted(
        boot(LLAMA), prompts[:1], [kg.knockout(window=1)], kg.executors.staircase, n_tokens=3
    )
    rows = L + L * (L + 1) // 2
    assert (got.passes, sum(got.tokens), got.unembedded) == (1, 3 * rows, 3 * (L + 1))


def test_max_rows_bounds_the_rows_of_a_pass(boot, prompts):
    small = _staircase.Staircase(max_rows=2)
    got = counted(boot(LLAMA), prompts[:1], [kg.patch("resid_post", "subject")], small)
    assert got.passes == L
    assert max(got.rows) <= 2 * L


@contextmanager
def tallied(monkeypatch):
    """Counts what makes or moves a tensor, or reads one back, while a pass runs."""
    made = Counter()

    def count(owner, name):
        right = getattr(owner, name)

        def counting(*args, **kwargs):
            made[name] += 1
            return right(*args, **kwargs)

        patch.setattr(owner, name, counting)

    with monkeypatch.context() as patch:
        count(torch, "tensor")
        for name in TALLY[1:]:
            count(torch.Tensor, name)
        yield made


class Synchronisations(TorchDispatchMode):
    """Notes every operation that needs a value, or a shape, from the device."""

    WAITS = ("_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "equal")

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in self.WAITS or (name == "index" and has_mask(args)):
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


def has_mask(args) -> bool:
    return any(i is not None and i.dtype == torch.bool for i in args[1])


def passes(monkeypatch, model, prompts, kinds, watch):
    """What `watch` counted in every pass of a sweep, and how many cells there were."""
    (batch,) = bound(model, prompts, kinds, n_tokens=2, persistent=True)
    right, seen = _staircase.run_pass, []

    def watched(*args):
        with watch() as found:
            out = right(*args)
        seen.append(Counter(found))
        return out

    with monkeypatch.context() as patch:
        patch.setattr(_rows, "passing", lambda model: 1e9)  # one pass for all
        patch.setattr(_staircase, "run_pass", watched)
        list(kg.executors.staircase(model, batch.runs, batch.cells))
    return seen, len(batch.cells)


def some(n: int):
    """n of each kind; all begin at the subject, and differ where that makes no new hook."""
    return [
        one
        for i in range(n)
        for one in (
            kg.patch("resid_post", "subject", name=f"resid {i}"),
            kg.patch("z", "subject", heads=[i % 4], name=f"z {i}"),
            kg.knockout("subject", 1, window=3, heads=[i % 4], name=f"knockout {i}"),
            kg.edge_patch(["subject", "last"], "subject_first", window=3, name=f"edge {i}"),
        )
    ]


def test_transfers_do_not_grow_with_the_number_of_cells(boot, prompts, monkeypatch):
    model = boot(LLAMA)

    def watch():
        return tallied(monkeypatch)

    few, n_few = passes(monkeypatch, model, prompts[:1], some(1), watch)
    many, n_many = passes(monkeypatch, model, prompts[:1], some(6), watch)
    assert n_many == 6 * n_few
    assert len(few) == len(many) == 1
    assert few[0]["tensor"] > 0 < few[0]["to"]
    assert many == few
    assert not {name for name in ("item", "tolist", "cpu", "cuda") if many[0][name]}


class Indexed(TorchDispatchMode):
    """Counts the look-ups by an index tensor: made from a list, each moves it to the device."""

    def __init__(self):
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        # What a layer lets see is a boolean table that is kept on the host.
        self.n += func.overloadpacket.__name__ == "index" and args[0].is_floating_point()
        return func(*args, **(kwargs or {}))


def test_binding_moves_nothing_per_cell(boot, prompts, monkeypatch):
    """Values, heads and cached keys are cut out in slices."""
    monkeypatch.setattr(_rows, "passing", lambda model: 1e9)  # one pass for all
    counts = []
    for n in (1, 6):
        with Indexed() as found:
            (batch,) = bound(boot(LLAMA), prompts[:1], some(n))
            once = found.n
            list(kg.executors.staircase(boot(LLAMA), batch.runs, batch.cells))
        counts.append((once, found.n))
    assert counts[0] == counts[1]
    with Indexed() as found:  # the watch sees what it should
        torch.ones(3)[[0, 2]]
    assert found.n == 1


def test_nothing_waits_for_the_device_inside_a_pass(boot, prompts, monkeypatch):
    @contextmanager
    def watch():
        with Synchronisations() as mode:
            yield mode.found

    seen, _ = passes(monkeypatch, boot(LLAMA), prompts, some(2), watch)
    assert seen
    assert not any(seen), seen
    with watch() as found:  # the watch sees what it should
        torch.ones(2).sum().item()
        torch.ones(2)[torch.ones(2, dtype=torch.bool)]
    assert set(found) >= {"_local_scalar_dense"}
    assert len(found) == 2
