"""Tables of arrays `[prompt, layer, …]`, one per intervention, with their prompts."""

import numpy as np

from knockgrid.table.table import build


def made_of(parts, relations=None, groups=None, columns=("layer",), subjects=None, **metadata):
    """The table of prompts p0, p1, … in nats; an array alone is that of the intervention "last"."""
    parts = parts if isinstance(parts, dict) else {"last": parts}
    n = len(next(iter(parts.values())))
    labels = {"relation": relations, "subject": subjects}
    sides = [
        {"id": f"p{i}", **{name: some[i] if some else None for name, some in labels.items()}}
        for i in range(n)
    ]
    rows = [
        {
            "prompt": f"p{i}",
            "group": groups[i] if groups else None,
            "intervention": name,
            **dict(zip(columns, place, strict=True)),
            "js": float(values[(i, *place)]),
        }
        for name, values in parts.items()
        for i in range(n)
        for place in np.ndindex(values.shape[1:])
    ]
    return build(rows, {"unit": "nats", "prompts": sides, **metadata})


def correlated(rng, codes, correlation, runs):
    """Normal scores `[prompt, run]` of unit variance, alike within clusters."""
    shared = rng.normal(size=(codes.max() + 1, runs))[codes]
    own = rng.normal(size=(len(codes), runs))
    return np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own
