"""Prompts that raise inside a shard."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from fault_bench import KEYS, Bench, Line, about, shards_of

import knockgrid as kg


def raising(*ids: str, only_first: bool = False) -> Callable[[], None]:
    """A sweep in which some prompts raise, always or the first time only."""

    def before() -> None:
        from knockgrid.runs import work

        plain, seen = work.collect, []

        def collect(setup, batch, places, done):
            bad = [one.prompt.id for one in batch if one.prompt.id in ids]
            if bad and not (only_first and seen):
                seen.append(bad)
                raise ValueError(f"{bad[0]} cannot be carried out")
            return plain(setup, batch, places, done)

        work.collect = collect

    return before


def close(table: pd.DataFrame, expected: pd.DataFrame) -> bool:
    """Whether numbers are equal to 1e-6: a prompt that is computed alone rounds differently."""
    numbers = [name for name in expected if expected[name].dtype == "float64"]
    one, other = (t.set_index(KEYS)[numbers].sort_index() for t in (table, expected))
    return one.index.equals(other.index) and np.allclose(
        one, other, rtol=0, atol=1e-6, equal_nan=True
    )


SETS = (("p4",), ("p0", "p11"), ("p2", "p4", "p17"))


def raised(bench: Bench, sets: Sequence[tuple[str, ...]] = SETS) -> Line:
    """Recorded with its error, the others kept, exit code 3; the same command repairs it."""
    line = Line("prompt that raises inside a shard")
    for ids in sets:
        line.tried += 1
        out = bench.folder("raised")
        says = (f"{len(ids)} prompt{'s' * (len(ids) > 1)} of", "cannot be carried out")
        line.ends(bench, out, 3, *says, before=raising(*ids))
        before = line.interrupted(out)
        table = kg.open_run(out)
        failed = table.attrs["knockgrid"].get("failed", {})
        line.expect(set(failed) == set(ids), f"failed names {sorted(failed)}")
        line.expect(all(f"ValueError: {i} cannot" in failed.get(i, "") for i in ids), failed)
        others = bench.table[~bench.table["prompt"].isin(ids)]
        gone = set(others["prompt"]) - set(table["prompt"])
        line.wrong("lost", len(gone), sorted(gone))
        line.wrong("unequal", int(not close(table, others)), "the other prompts' values")
        line.ends(bench, out, 3, *says, before=raising(*ids))
        with_failures = {n for n in before if about(out / "shards" / n)["failed"]}
        whole = {n: stat for n, stat in before.items() if n not in with_failures}
        line.ends(bench, out, 0)
        line.resumed(out, whole, bench.table)
    return line


def raised_once(bench: Bench) -> Line:
    """An error that passes within the run leaves no trace but rounding."""
    line = Line("prompt that raises once")
    line.tried += 1
    out = bench.folder("once")
    line.ends(bench, out, 0, before=raising("p4", only_first=True))
    line.wrong("unequal", int(not close(kg.open_run(out), bench.table)), "values")
    return line


def kept_from_worse(bench: Bench) -> Line:
    """A writer whose prompts fail does not write over another's finished shard."""
    line = Line("failing writer beside a sound one")
    for _ in range(3):
        line.tried += 1
        out = bench.folder("beside")
        children = [bench.sweep(out, before=raising("p4", "p7")), bench.sweep(out)]
        codes = [child.wait() for child in children]
        line.expect(codes[1] in (0, 3) and codes[0] in (0, 3), f"{codes}")
        stats = shards_of(out).items()
        before = {n: stat for n, stat in stats if not about(out / "shards" / n)["failed"]}
        code, said = bench.ended(out, before=raising("p4", "p7"))
        line.expect(code in (0, 3), f"{code} {said}")
        changed = [n for n in before if shards_of(out).get(n) != before[n]]
        line.wrong("lost", len(changed), f"{changed} were written over")
        line.ends(bench, out, 0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            line.resumed(out, before, bench.table)
    return line
