"""carry_out: from settings to a run folder."""

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from knockgrid._sweep import sweep
from knockgrid.edge.choose import choose_prompts
from knockgrid.edge.config import SweepConfig
from knockgrid.edge.plan import interventions_of
from knockgrid.edge.store import claim, write_run

SAME = (
    *("layers", "n_tokens", "mode", "unit", "samples", "direction", "executor"),
    *("prepend_bos", "seed"),
)


def carry_out(
    config: SweepConfig, out: Path, load: Callable[[], TransformerBridge]
) -> pd.DataFrame:
    """Sweep as the settings say and write table and manifest; nothing is computed before checks.

    Raises:
        InputError: bad settings, a folder that holds another run, or no prompts.
    """
    rows = interventions_of(config)
    claim(out, config)
    model = load()
    chosen = choose_prompts(config, model)
    started = datetime.now(timezone.utc)
    table = sweep(model, chosen.prompts, rows, **{name: getattr(config, name) for name in SAME})
    write_run(out, table, config, started, chosen.selection)
    return table
