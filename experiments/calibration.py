"""How often intervals cover and tests reject on simulated data, from table to figure.

python experiments/calibration.py --out runs/calibration

Skewed values between 0 and ln 2; every column of an array is a data set of its own.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import beta, norm

from knockgrid.stats.flips import flip_test, permute_test
from knockgrid.stats.mean_interval import interval
from knockgrid.stats.resample import resample

CLUSTERS, CORRELATIONS = (6, 7, 12, 20, 40), (0.0, 0.3, 0.9)
METHODS = ("i.i.d. bootstrap", "percentile cluster bootstrap", "bootstrap-t over clusters")


def draw(rng, codes, correlation, runs):
    shared = rng.normal(size=(codes.max() + 1, runs))[codes]
    own = rng.normal(size=(len(codes), runs))
    z = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own
    fine = np.linspace(-6, 6, 20001)
    return np.log(2) * np.interp(z, fine, beta.ppf(norm.cdf(fine), 0.7, 2.1))


def measured(n, correlation, runs):
    rng = np.random.default_rng([n, round(100 * correlation)])
    codes = np.repeat(np.arange(n), np.round(np.geomspace(3, 12, n)).astype(int))
    values, truth = draw(rng, codes, correlation, runs), np.log(2) / 4
    for name in METHODS:
        made = resample(values, [np.arange(len(codes)) if "i.i.d." in name else codes], 599)
        method = "bootstrap-t" if "-t" in name else "percentile"
        ends = interval(made, np.arange(runs), method=method)
        yield name, float(np.mean((ends.low <= truth) & (truth <= ends.high)))
    apart = values - draw(rng, codes, correlation, runs)
    yield "signs flipped by prompt", np.mean(flip_test(apart, [np.arange(len(codes))])[0] <= 0.05)
    yield "signs flipped by cluster", np.mean(flip_test(apart, [codes])[0] <= 0.05)
    half = rng.permutation(n) < n // 2
    yield "clusters permuted", np.mean(permute_test(values, codes, half)[0] <= 0.05)


def drawn(table, runs):
    figure = Figure(figsize=(11, 6), layout="constrained")
    for row, names in zip(figure.subplots(2, 3, sharey="row"), (METHODS, None), strict=True):
        for ax, (correlation, part) in zip(row, table.groupby("correlation"), strict=True):
            rest = [name for name in part["name"].unique() if (name in METHODS) == bool(names)]
            for name, marker in zip(rest, "os^", strict=True):
                mine = part[part["name"] == name]
                ax.plot(mine["clusters"], mine["rate"], marker=marker, label=name, linewidth=1.3)
            ax.axhline(0.95 if names else 0.05, color="black", linewidth=0.8, linestyle="--")
            ax.set(xscale="log", xticks=CLUSTERS, xticklabels=CLUSTERS)
            ax.minorticks_off()
            ax.set_title(f"intraclass correlation {correlation:g}", fontsize="medium")
            ax.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel("coverage, nominal 0.95" if names else "false positives at p ≤ 0.05")
        row[0].set_ylim(*((0.2, 1.0) if names else (0.0, 0.75)))
        row[0].legend(frameon=False, fontsize="small")
    figure.supxlabel(f"clusters ({runs} simulated data sets per point)", fontsize="medium")
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("runs/calibration"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    cells = [(c, n) for c in CORRELATIONS for n in CLUSTERS]
    found = [(*cell, *one) for cell in cells for one in measured(*cell[::-1], given.runs)]
    table = pd.DataFrame(found, columns=["correlation", "clusters", "name", "rate"])
    table.to_csv(given.out / "table.csv", index=False)
    drawn(table, given.runs).savefig(given.out / "calibration.png", dpi=110)
    print(table.pivot(index=["correlation", "clusters"], columns="name", values="rate").round(3))
