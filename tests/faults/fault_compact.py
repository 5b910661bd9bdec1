"""`compact`, killed or out of room at every step."""

from pathlib import Path

import pyarrow.parquet as pq
from fault_bench import KEYS, Bench, Line, equal, table_of, unreadable
from fault_calls import EVERY, NEED_ROOM, Calls, count_into, die, no_room

import knockgrid as kg


def look(bench: Bench, line: Line, out: Path, step: object) -> None:
    """The table of a run, read in both ways."""
    bad = unreadable(out)
    line.wrong("unreadable", len(bad), bad)
    try:
        rows = kg.runs.scan_run(out).to_table(columns=KEYS).to_pandas()
        line.wrong("duplicates", int(rows.duplicated(KEYS).sum()), f"step {step}")
        line.wrong("lost", int(len(rows) < len(bench.table)), f"step {step}")
        line.wrong("unequal", int(not equal(table_of(out), bench.table)), f"step {step}")
    except Exception as error:
        line.wrong("unequal", 1, f"step {step}: {type(error).__name__}: {error}")


def compacted(bench: Bench, every: int = 1) -> Line:
    """Killed before and out of room at every write, flush, rename and removal."""
    line = Line("compact killed or out of room at every step")
    counts = bench.room / "calls-of-compact"
    bench.start(["compact", str(bench.copy())], count_into(counts)).wait()
    called = counts.read_text().split()
    for action, expected, names in ((die, 137, EVERY), (no_room, 2, NEED_ROOM)):
        steps = sum(name in names for name in called)
        for step in range(1, steps + 1, every):
            line.tried += 1
            out = bench.copy()
            install = Calls(step, action, names).install
            line.ended(bench.start(["compact", str(out)], install), expected)
            look(bench, line, out, step)
            line.ended(bench.start(["compact", str(out)]))
            look(bench, line, out, f"{step}, compacted")
            left = list((out / "shards").glob("*.parquet"))
            line.wrong("duplicates", len(left), "shards beside the compacted table")
    line.ends(bench, out, 0)  # the sweep again on a compacted run
    return line


def compacted_damage(bench: Bench, times: int = 3) -> Line:
    """A shard with a flipped bit is refused, not copied, and nothing is removed."""
    line = Line("compact over a damaged shard")
    for name in sorted(path.name for path in (bench.undisturbed / "shards").iterdir())[:times]:
        line.tried += 1
        out = bench.copy()
        path = out / "shards" / name
        content = bytearray(path.read_bytes())
        pages = pq.read_metadata(path).row_group(0).column(20)
        content[pages.data_page_offset + pages.total_compressed_size - 3] ^= 4
        path.write_bytes(bytes(content))
        line.ended(bench.start(["compact", str(out)]), 2, "is damaged")
        there = len(list((out / "shards").glob("*.parquet")))
        line.wrong("lost", int(there != len(list((bench.undisturbed / "shards").iterdir()))), name)
        line.ends(bench, out, 0)
        look(bench, line, out, name)
    return line
