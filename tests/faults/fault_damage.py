"""Files that were cut short, or in which a bit has flipped."""

import random
import warnings
from collections.abc import Callable
from pathlib import Path

from fault_bench import Bench, Line, about, equal, shards_of

import knockgrid as kg


def cuts(size: int, footer: int) -> dict[str, int]:
    """Every class of lengths that a Parquet file may be cut to; `footer` is where it begins."""
    lengths = {"empty": 0, "one byte": 1, "magic": 4, "first page header": 12}
    lengths |= {"first page": footer // 8, "half of the pages": footer // 2}
    lengths |= {"all but a byte of the pages": footer - 1, "pages": footer}
    lengths |= {"half of the footer": (footer + size) // 2, "footer without its length": size - 8}
    return lengths | {"all but the last magic": size - 4, "all but a byte": size - 1}


def footer_at(content: bytes) -> int:
    """Where the footer of a Parquet file begins."""
    return len(content) - 8 - int.from_bytes(content[-8:-4], "little")


def read_or_refused(out: Path, bench: Bench) -> str:
    """What `open_run` makes of a folder: `equal`, `refused`, or what it is instead."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            table = kg.open_run(out)
            some = kg.open_run(out, columns=["prompt", "layer", "js"], where={"layer": [1]})
    except (kg.InputError, UserWarning):
        return "refused"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    expected = bench.table[bench.table["layer"] == 1][["prompt", "layer", "js"]]
    same = some.reset_index(drop=True).equals(expected.reset_index(drop=True))
    return "equal" if equal(table, bench.table) and same else "another table, without a word"


def damaged(bench: Bench, line: Line, name: str, spoil: Callable[[bytes], bytes], what: str) -> str:
    """Spoil a file of a finished run, read it, give the command again; how it was read."""
    line.tried += 1
    out = bench.copy()
    before = shards_of(out)
    path = out / name
    path.write_bytes(spoil(path.read_bytes()))
    read = read_or_refused(out, bench)
    line.wrong("unequal", int(read not in ("equal", "refused")), f"{what}: {read}")
    code, said = bench.ended(out)
    if name.startswith("shards/"):
        line.expect(code == 0, f"{what}: resumed with {code}, {said!r}")
        del before[path.name]
    else:
        line.expect(code in (0, 2) and (code == 0 or bool(said)), f"{what}: {code}, {said!r}")
    if code == 0:
        line.resumed(out, before, bench.table)
    return read


OTHERS = ("plan.jsonl", "statistics.safetensors", "manifest.json", "prompts.parquet")


def truncated(bench: Bench, every: int = 1) -> Line:
    """Every class of lengths of a shard, and of every other file of a run."""
    line = Line("file cut short")
    shard = sorted((bench.undisturbed / "shards").iterdir())[3]
    content = shard.read_bytes()
    for what, length in [*cuts(len(content), footer_at(content)).items()][::every]:
        name, said = f"shards/{shard.name}", f"shard, {what}"
        read = damaged(bench, line, name, lambda c, n=length: c[:n], said)
        line.expect(read == "refused", f"a shard cut to {what} was read: {read}")
    for name in OTHERS:
        size = (bench.undisturbed / name).stat().st_size
        for length in [size // 2, 0, 1, size - 1][::every]:
            damaged(bench, line, name, lambda c, n=length: c[:n], f"{name} cut to {length}")
    return line


def flipped(bench: Bench, rng: random.Random, times: int) -> Line:
    """Single bits at random places of a shard: detected, or without effect."""
    line = Line("one bit flipped in a shard")
    shard = sorted((bench.undisturbed / "shards").iterdir())[3]
    content = shard.read_bytes()
    seen = {"equal": 0, "refused": 0}
    for place in sorted(rng.sample(range(8 * len(content)), times)):

        def spoil(content: bytes, place: int = place) -> bytes:
            spoilt = bytearray(content)
            spoilt[place // 8] ^= 1 << place % 8
            return bytes(spoilt)

        where = f"bit {place} of {8 * len(content)} (footer from {8 * footer_at(content)})"
        read = damaged(bench, line, f"shards/{shard.name}", spoil, where)
        seen[read] = seen.get(read, 0) + 1
    line.notes.append(f"open_run: {seen}")
    return line


def misplaced(bench: Bench) -> Line:
    """A shard under another's name, one of another run, one that was taken away."""
    line = Line("shard misplaced, foreign or taken away")
    shards = sorted((bench.undisturbed / "shards").iterdir())
    other = bench.folder("other-seed")
    line.ended(bench.sweep(other, "--seed", 1))
    cases = {
        "copied over another": shards[1].read_bytes(),
        "of a run with another seed": (other / "shards" / shards[2].name).read_bytes(),
        "taken away": None,
    }
    for what, content in cases.items():
        line.tried += 1
        out = bench.copy()
        path = out / "shards" / shards[2].name
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        before = shards_of(out)
        before.pop(path.name, None)
        read = read_or_refused(out, bench)
        line.wrong("unequal", int(read != "refused"), f"{what}: {read}")
        line.ends(bench, out, 0)
        line.resumed(out, before, bench.table)
        line.expect(about(path)["number"] == 2, what)
    return line
