"""Split: which shards of a run are this process's, when several processes carry it out."""

import os
from collections.abc import Mapping

from knockgrid.errors import InputError


def part_of(shard: str | None, environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """The part of a run, `(i, n)` with i from 1 to n; (1, 1) for all of it.

    With `"auto"` it comes from a SLURM array, the tasks of a SLURM step, torchrun, or an array
    whose tasks start several processes.
    """
    if shard is None:
        return 1, 1
    if shard == "auto":
        return _from(environment)
    first, _, last = shard.partition("/")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise InputError(f"shard is {shard!r}; write 1/8 to 8/8 for the parts of eight, or auto")
    return int(first), int(last)


def _from(environment: Mapping[str, str]) -> tuple[int, int]:
    """The process among those of its task, and the task among those of its array."""
    try:
        inner, outer = _of_task(environment), _of_array(environment)
    except ValueError as error:
        raise InputError(f"the scheduler's variables cannot be read ({error})") from None
    if inner is None and outer is None:
        raise InputError(
            "shard is 'auto', but "
            + (
                "this is one process of a SLURM job and no step of several; start it with srun, "
                "or leave --shard out"
                if "SLURM_PROCID" in environment
                else "neither SLURM nor torchrun has set its variables here; write i/n"
            )
        )
    (i, n), (j, m) = inner or (1, 1), outer or (1, 1)
    return (j - 1) * n + i, m * n


def _of_task(environment: Mapping[str, str]) -> tuple[int, int] | None:
    """The place of a process that torchrun or srun has started."""
    # A batch script, alone, has number 0 of as many tasks as the job may start; only a step that
    # srun has started says how many of its tasks there really are.
    for rank, size in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")):
        if rank in environment and size in environment:
            place, of = int(environment[rank]), int(environment[size])
            if not 0 <= place < of:
                raise InputError(
                    f"{rank} is {place} and {size} is {of}, which cannot be; write i/n instead"
                )
            return place + 1, of
    return None


def _of_array(environment: Mapping[str, str]) -> tuple[int, int] | None:
    """The place of a task in a SLURM array.

    SLURM tells the least and greatest number of the array, and how many there are, but not which;
    so the place is known only if the numbers are evenly spaced. A list has the step 1, a range the
    step that was asked for, and the last number of a range need not be hit.
    """
    if "SLURM_ARRAY_TASK_ID" not in environment:
        return None
    names = ("ID", "COUNT", "MIN", "MAX", "STEP")
    given = {name: environment.get(f"SLURM_ARRAY_TASK_{name}") for name in names}
    number = {name: int(value) for name, value in given.items() if value is not None}
    if len(number) == len(names) and number["STEP"] > 0:
        place, off = divmod(number["ID"] - number["MIN"], number["STEP"])
        count = (number["MAX"] - number["MIN"]) // number["STEP"] + 1
        if off == 0 and count == number["COUNT"] and 0 <= place < count:
            return place + 1, count
    said = ", ".join(f"{name.lower()} {value}" for name, value in given.items())
    raise InputError(
        f"the numbers of this SLURM array are not evenly spaced ({said}), so a task cannot know "
        "its place; submit --array=1-N, or give every task --shard i/n"
    )


def local_device(shard: str | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """The accelerator of this process among those that its node shows it; None to leave it open."""
    import torch

    place = environment.get("LOCAL_RANK", environment.get("SLURM_LOCALID"))
    if shard != "auto" or place is None or not place.isdecimal():
        return None
    count = torch.cuda.device_count()
    return f"cuda:{int(place) % count}" if count > 1 else None


def mine(numbers: int, part: tuple[int, int]) -> range:
    """The shards of a part: every n-th one, so that all parts get prompts of all lengths."""
    return range(part[0] - 1, numbers, part[1])
