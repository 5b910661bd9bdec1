"""Split: which shards of a run are this process's, when several processes carry it out."""

import os
from collections.abc import Mapping

from knockgrid._errors import InputError


def part_of(shard: str | None, environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """The part of a run, `(i, n)` with i from 1 to n; (1, 1) for all of it.

    Example:
        >>> part_of("2/8"), part_of(None)
        ((2, 8), (1, 1))
        >>> part_of("auto", {"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "4",
        ...                  "SLURM_ARRAY_TASK_MIN": "3", "SLURM_ARRAY_TASK_STEP": "1"})
        (3, 4)

    With `"auto"` it comes from a SLURM array, the tasks of a SLURM step, or torchrun.

    Raises:
        InputError: not `i/n`, or `"auto"` where none of them has set its variables.
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
    def number(name: str, default: int) -> int:
        return int(environment.get(name, default))

    try:
        if "SLURM_ARRAY_TASK_ID" in environment:
            low, step = number("SLURM_ARRAY_TASK_MIN", 0), number("SLURM_ARRAY_TASK_STEP", 1)
            place = (number("SLURM_ARRAY_TASK_ID", 0) - low) // max(1, step)
            return place + 1, number("SLURM_ARRAY_TASK_COUNT", 1)
        if "RANK" in environment and "WORLD_SIZE" in environment:
            return number("RANK", 0) + 1, number("WORLD_SIZE", 1)
        if "SLURM_PROCID" in environment and "SLURM_NTASKS" in environment:
            return number("SLURM_PROCID", 0) + 1, number("SLURM_NTASKS", 1)
    except ValueError as error:
        raise InputError(f"the scheduler's variables cannot be read ({error})") from None
    raise InputError(
        "shard is 'auto', but neither SLURM nor torchrun has set its variables here; write i/n"
    )


def local_device(shard: str | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """The accelerator of this process among those that its node shows it; None to leave it open.

    Example:
        >>> local_device(None) is None
        True
    """
    import torch

    place = environment.get("LOCAL_RANK", environment.get("SLURM_LOCALID"))
    if shard != "auto" or place is None or not place.isdecimal():
        return None
    count = torch.cuda.device_count()
    return f"cuda:{int(place) % count}" if count > 1 else None


def mine(numbers: int, part: tuple[int, int]) -> range:
    """The shards of a part: every n-th one, so that all parts get prompts of all lengths.

    Example:
        >>> list(mine(5, (2, 3)))
        [1, 4]
    """
    return range(part[0] - 1, numbers, part[1])
