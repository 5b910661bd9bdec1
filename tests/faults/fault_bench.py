"""A bench for faults: a tiny model, sweeps of it in forked processes, and what is left of them.

Importing torch and TransformerLens takes ten times as long as the sweep itself, so every process
under test is forked from one that has them, the model and the undisturbed table in hand.
"""

import gc
import json
import os
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.cli.self_test import Patient

CITIES = "France Italy Brazil Paris Rome Lima Oslo Kairo Bern".split()
FORMS = ("The capital of {} is", "The language that is spoken in {} is")
LONGEST = 120
"""Seconds after which a process under test counts as hanging."""
KEYS = ["prompt", "intervention", "layer", "token"]


def tiny_model() -> TransformerBridge:
    """A random Llama of two blocks in float64 over bytes, as `knockgrid doctor` tests itself on."""
    return Patient().model


def prompt_lines(count: int = 18) -> list[dict[str, Any]]:
    """Prompts of several lengths, as a file holds them."""
    words = [(form, city) for city in CITIES for form in FORMS][:count]
    return [
        {"id": f"p{i}", "text": form.format(city), "subject": city}
        for i, (form, city) in enumerate(words)
    ]


@dataclass
class Child:
    """A forked process and what it wrote on its streams."""

    pid: int
    log: Path
    until: float = field(default_factory=lambda: time.monotonic() + LONGEST)
    code: int | None = None

    def wait(self) -> int:
        """Its exit code as a shell gives it: 128 and the signal for one that was killed."""
        while self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                self.code = code if code >= 0 else 128 - code
            elif time.monotonic() > self.until:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                self.code = -1
            else:
                time.sleep(0.002)
        return self.code

    @property
    def said(self) -> str:
        """What it wrote."""
        return self.log.read_text("utf-8", "replace")

    @property
    def sentence(self) -> str:
        """The last line, if it is one that is meant for a user; empty with a traceback."""
        text = self.said
        lines = text.replace("\r", "\n").strip().splitlines() or [""]
        good = "Traceback" not in text and lines[-1].startswith("knockgrid: ")
        return lines[-1] if good else ""


class Bench:
    """The model, a prompt file, the undisturbed run, and room for disturbed ones."""

    def __init__(self, room: Path, count: int = 18, model: TransformerBridge | None = None) -> None:
        torch.set_num_threads(1)
        self.room = room
        self.model = tiny_model() if model is None else model
        self.prompts = self.file(prompt_lines(count), "prompts")
        self.count = 0
        self.undisturbed = room / "undisturbed"
        with one_command(self, lambda: None):
            code = command(self.arguments(self.undisturbed))
        assert code == 0, "the undisturbed run has failed"
        self.table = table_of(self.undisturbed)
        gc.collect()
        gc.freeze()  # else every child copies what it does not change

    def file(self, lines: Sequence[dict[str, Any]], name: str) -> Path:
        """A prompt file."""
        path = self.room / f"{name}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    def folder(self, name: str = "run") -> Path:
        """A folder that is not there yet."""
        self.count += 1
        return self.room / f"{name}-{os.getpid()}-{self.count}"

    def copy(self) -> Path:
        """A copy of the undisturbed run."""
        return Path(shutil.copytree(self.undisturbed, self.folder("copy")))

    def arguments(self, out: Path, *more: object) -> list[str]:
        """The command under test."""
        given = ("--model", "tiny", "--prompts", self.prompts, "--out", out)
        same = ("--set", "batch=2", "--no-noise-floor", "--dtype", "float64")
        return ["sweep", *map(str, (*given, *same, *more))]

    def start(self, arguments: Sequence[str], before: Callable[[], object] = lambda: None) -> Child:
        """Fork a process that gives a command, once `before` was called in it."""
        self.count += 1
        log = self.room / f"log-{os.getpid()}-{self.count}"
        log.touch()
        pid = os.fork()
        if pid:
            return Child(pid, log)
        code = 1
        try:
            streams = os.open(log, os.O_WRONLY | os.O_APPEND)
            os.dup2(streams, 1)
            os.dup2(streams, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            signal.signal(signal.SIGINT, signal.default_int_handler)
            warnings.resetwarnings()  # under pytest every warning is an error
            with one_command(self, before):
                code = command(arguments)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def sweep(self, out: Path, *more: object, before: Callable = lambda: None) -> Child:
        """Start a sweep."""
        return self.start(self.arguments(out, *more), before)

    def ended(self, out: Path, *more: object, before: Callable = lambda: None) -> tuple[int, str]:
        """Give the command and wait for its end: the exit code and its last line."""
        child = self.sweep(out, *more, before=before)
        code, said = child.wait(), child.sentence
        if code == 1:  # no fault may end in a traceback
            print(child.said[-1500:], file=sys.stderr)
        child.log.unlink()
        return code, said

    def seconds(self) -> float:
        """How long an undisturbed sweep takes at present."""
        times = []
        for _ in range(3):
            begun = time.monotonic()
            assert self.ended(self.folder())[0] == 0
            times.append(time.monotonic() - begun)
        return sorted(times)[1]


@contextmanager
def one_command(bench: Bench, before: Callable[[], object]) -> Iterator[None]:
    """The bench's model instead of a loaded one, and no figures, which take longer than the run."""
    from knockgrid.reports import draw
    from knockgrid.runs import job as plan

    kept = plan.load_model, draw.draw
    plan.load_model = lambda *_, **__: bench.model
    draw.draw = lambda *_, **__: []
    try:
        before()
        yield
    finally:
        plan.load_model, draw.draw = kept


def command(arguments: Sequence[str]) -> int:
    """The exit code of a command, given in this process."""
    from knockgrid.cli import app as cli

    kept = sys.argv, warnings.showwarning
    sys.argv = ["knockgrid", *arguments]
    try:
        cli.main()
    except SystemExit as done:
        return int(done.code or 0)
    finally:
        sys.argv, warnings.showwarning = kept
    return 0


def table_of(folder: Path) -> pd.DataFrame:
    """The table of a run; an unfinished one is an error."""
    import knockgrid as kg

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return kg.open_run(folder)


def equal(table: pd.DataFrame, expected: pd.DataFrame) -> bool:
    """Whether two tables have the same bits in the same places, and the same metadata."""
    try:
        pd.testing.assert_frame_equal(table, expected, check_exact=True)
    except AssertionError:
        return False
    return table.attrs == expected.attrs


def shards_of(folder: Path) -> dict[str, tuple[int, int, int]]:
    """The shards that are there, by inode, size and time: one that is written anew has others."""
    stats = {path.name: path.stat() for path in sorted((folder / "shards").glob("*.parquet"))}
    return {name: (one.st_ino, one.st_size, one.st_mtime_ns) for name, one in stats.items()}


def about(path: Path) -> dict[str, Any]:
    """What a shard says of itself, read without the product."""
    return json.loads(pq.read_metadata(path).metadata[b"knockgrid"])


def unreadable(folder: Path) -> list[str]:
    """Files under their final names that cannot be read, without the product's own checks."""
    readers: dict[str, Callable[[Path], Any]] = {
        ".parquet": pq.read_table,
        ".json": lambda path: json.loads(path.read_text()),
        ".jsonl": lambda path: [json.loads(line) for line in path.read_text().splitlines()],
        ".safetensors": load_file,
    }
    bad = []
    for path in folder.rglob("*") if folder.exists() else ():
        if path.suffix in readers and not path.name.startswith("."):
            try:
                readers[path.suffix](path)
            except Exception:
                bad.append(path.name)
    return bad


@dataclass
class Line:
    """One line of the table: what was tried, how often, and what was found wrong."""

    fault: str
    tried: int = 0
    lost: int = 0
    duplicates: int = 0
    unreadable: int = 0
    unequal: int = 0
    said_wrong: int = 0
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def bad(self) -> int:
        """How much was found wrong."""
        return self.lost + self.duplicates + self.unreadable + self.unequal + self.said_wrong

    def wrong(self, what: str, count: int, note: object = "") -> None:
        """Count what was found wrong, and remember the first few."""
        if count:
            setattr(self, what, getattr(self, what) + count)
            if len(self.notes) < 5:
                self.notes.append(f"{what.replace('_', ' ')} (try {self.tried}): {note}")

    def expect(self, holds: bool, note: object) -> None:
        """Something that a process must say or return."""
        self.wrong("said_wrong", int(not holds), note)

    def ends(
        self, bench: Bench, out: Path, wanted: int, *says: str, before: Callable = lambda: None
    ) -> None:
        """Give the command for a folder; its exit code and what its last line must say."""
        self.ended(bench.sweep(out, before=before), wanted, *says)

    def ended(self, child: Child, wanted: int = 0, *says: str) -> None:
        """Wait for a process; its exit code and what its last line must say."""
        code = child.wait()
        fits = code == wanted and all(word in child.sentence for word in says)
        self.expect(fits, f"{code} instead of {wanted} {says}: {child.said[-300:]}")

    def interrupted(self, folder: Path) -> dict[str, tuple[int, int, int]]:
        """What is there at the moment of a fault; all of it must be readable."""
        bad = unreadable(folder)
        self.wrong("unreadable", len(bad), bad)
        return shards_of(folder)

    def resumed(self, folder: Path, before: dict[str, Any], expected: pd.DataFrame) -> None:
        """What is there at the end: the same shards, every prompt once, the undisturbed table."""
        import knockgrid as kg

        now = shards_of(folder)
        gone = [name for name, stat in before.items() if now.get(name) != stat]
        for name in gone:
            path = folder / "shards" / name
            prompts = about(path)["prompts"] if path.exists() else [name]
            self.wrong("lost", len(prompts), f"{name} of {folder.name} was written anew")
        bad = unreadable(folder)
        self.wrong("unreadable", len(bad), bad)
        try:
            table = table_of(folder)
            rows = kg.runs.scan_run(folder).to_table(columns=KEYS).to_pandas()
        except Exception as error:
            self.wrong("unequal", 1, f"{type(error).__name__}: {error}")
            return
        missing = set(expected["prompt"]) - set(table["prompt"])
        self.wrong("lost", len(missing), sorted(missing))
        twice = int(rows.duplicated(KEYS).sum() + table.duplicated(KEYS).sum())
        self.wrong("duplicates", twice, folder.name)
        self.wrong("unequal", int(not equal(table, expected)), folder.name)


HEAD = ("fault", "tried", "lost", "duplicates", "unreadable", "unequal", "said_wrong", "seconds")


def report(lines: Sequence[Line]) -> str:
    """The table of faults."""
    table = pd.DataFrame([vars(one) for one in lines])[list(HEAD)].round({"seconds": 0})
    return table.to_string(index=False)
