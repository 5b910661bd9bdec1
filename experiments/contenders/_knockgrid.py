"""The same sweep through knockgrid, on one of its executors."""

from collections.abc import Sequence

import knockgrid as kg
from contenders._task import Task


def table_of(task: Task, prompts: Sequence[kg.Prompt], executor: str):
    """The table of the three rows, window 1, fixed vectors, all default measures."""
    rows = kg.information_flow(kg.fixed(task.vectors), window=1)
    return kg.sweep(task.bridge, prompts, rows, executor=executor, progress=False)


def js_of(task: Task, prompts: Sequence[kg.Prompt], executor: str) -> list[float]:
    """JS of every prompt, row and layer, in this order."""
    return table_of(task, prompts, executor)["js"].tolist()
