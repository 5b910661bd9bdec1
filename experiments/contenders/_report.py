"""The printed tables of the benchmark."""

from statistics import median

import pandas as pd

from contenders._engine import divergence_share, peak_mib, subject_flops_per_second
from contenders._field import task_of, warm_up
from contenders._growth import by_depth, by_length, by_suffix, exponent
from contenders._knockgrid import js_of
from contenders._measure import matmul_peak


def ratios(table: pd.DataFrame) -> pd.DataFrame:
    """Minimum, median and maximum over rounds of every contender's time over the staircase's.

    Contenders other than the staircase cost the mix what its lengths cost them.
    """
    wide = table.pivot(index=["length", "round"], columns="contender", values="seconds")
    mean = wide[wide.index.get_level_values("length") > 0].groupby("round").mean()
    for number in mean.index if 0 in wide.index.get_level_values("length") else ():
        own = wide.loc[(0, number), "staircase"]
        wide.loc[(0, number)] = {**mean.loc[number], "staircase": own}
    ratio = wide.div(wide["staircase"], axis=0).groupby("length").agg(["min", "median", "max"])
    return ratio.rename(index={0: "mix"}).round(1).T


def engine(bridge, prompts, vectors) -> pd.DataFrame:
    """Per length: share of the peak that subject passes reach, and share of the divergences."""
    rows = {}
    for length, some in prompts.items():
        warm_up("staircase", bridge, some[:1], vectors)
        speed, peak = subject_flops_per_second(bridge, some, vectors), matmul_peak()
        task = task_of(bridge, None, some, vectors)
        calls = [lambda t=task, p=some: js_of(t, p, "staircase")] * 3
        share = median(map(divergence_share, calls))
        rows[length] = {"GFLOP/s": speed / 1e9, "of peak": speed / peak, "divergences": share}
    longest = max(prompts)
    for size, mib in peak_mib(bridge, prompts[longest], vectors, (60, 120, 240, 480)).items():
        rows[f"{longest} tokens, max_rows={size}"] = {"MiB": mib}
    return pd.DataFrame(rows).T


def growth(bridge) -> str:
    """CPU seconds per prompt against depth, length and suffix, with fitted exponents."""
    depth, length, suffix = by_depth(bridge), by_length(bridge), by_suffix(bridge)
    return "\n".join(
        [
            f"depth {depth} exponent {exponent(list(depth), list(depth.values())):.2f}",
            f"length {length} exponent {exponent(list(length), list(length.values())):.2f}",
            *(
                f"subject first, {n} tokens: {fast:.2f} s, loop {slow:.2f} s, {slow / fast:.1f} x"
                for n, (fast, slow) in suffix.items()
            ),
        ]
    )
