"""The Ray engine: actors that hold the model compute shards; this process alone writes them."""

import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pickle import PicklingError
from typing import Any

from knockgrid.errors import InputError
from knockgrid.runs.in_process import Done, Engine, Task
from knockgrid.runs.job import Job
from knockgrid.runs.ray_actor import Heard, ShardActor
from knockgrid.runs.ray_cluster import Room, connected, needs_ray, room
from knockgrid.runs.shard import Shard, schema
from knockgrid.runs.start import Start
from knockgrid.runs.work import LONGEST, computed_by

IN_FLIGHT = 2
"""Shards that an actor has at most: one in hand, and one so that it need not wait for the next."""
DEATHS = 3
"""Actors that may die of a shard, or in a row while they are set up."""
PATIENCE = 60
"""Seconds after which it is said that no actor has started."""


class ActorDied(UserWarning):
    """An actor or its machine is gone; its shards are computed again."""


@dataclass(frozen=True)
class RayEngine:
    """Actors on a Ray cluster, each with a model of its own.

    Example:
        >>> RayEngine(workers=4, cpus=2)
        RayEngine(workers=4, cpus=2, gpus=None, address=None)

    Args:
        workers: actors; as many as there is room for by default.
        cpus: CPUs, and so threads, of each; by default 1 beside a GPU and 2 without.
        gpus: GPUs of each; by default 1 where the cluster has any. Several are for a model that
            `device_map` spreads; a fraction shares a GPU.
        address: of a cluster that runs, as Ray writes it; `RAY_ADDRESS` by default, and without it
            a cluster of this machine is started for the time of the sweep.

    Raises:
        InputError: less than one worker or CPU, or less than no GPU.
    """

    workers: int | None = None
    cpus: int | None = None
    gpus: float | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("workers", 1), ("cpus", 1), ("gpus", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name} is {value}; give {least} or more")

    def on(self, device: str | None) -> "RayEngine":
        """The same for a model that goes to a device: no GPU for one that stays on the CPU."""
        if device is not None and ":" in device:
            raise InputError(
                f"device is {device!r}, but an actor sees only the GPUs that Ray gives it; write "
                "cuda or cpu, or nothing"
            )
        return replace(self, gpus=0) if device == "cpu" and self.gpus is None else self


@dataclass(eq=False)
class Member:
    """An actor, the reference to its set-up while that lasts, and its shards in their order."""

    actor: Any
    ready: Any = None
    in_flight: deque[tuple[int, Any]] = field(default_factory=deque)

    @property
    def awaited(self) -> list[Any]:
        """What may come of it next."""
        if self.ready is not None:
            return [self.ready]
        return [self.in_flight[0][1]] if self.in_flight else []


class OnRay(Engine):
    """Actors that are begun when they are needed; the first also prepares a run that is new.

    An actor that died is not restarted by Ray but replaced here, since whatever comes up in its
    place, perhaps on another machine, must be set up and checked before it may compute.
    """

    def __init__(self, job: Job, options: RayEngine) -> None:
        needs_ray()
        super().__init__(job)
        self.options = options
        self._held = ExitStack()
        self._first: Any = None
        self._room: Room | None = None
        self._said: set[str] = set()

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def start(self) -> Start:
        for attempt in range(1, DEATHS + 1):
            actor = self._actor()
            try:
                start = self._got(actor.start.remote())
            except Lost as lost:
                self._mourn(f"while it prepared the run ({lost})")
                if attempt == DEATHS:
                    raise given_up(lost) from None
            else:
                self._first = actor
                return start
        raise AssertionError("unreachable")

    def shards(self, task: Task, numbers: Iterable[int], done: Done) -> Iterator[Shard]:
        import ray

        size = min(self._connect().workers, task.wanted)
        sent = self._put((task.plan, task.belongs, task.proven))
        line = Line(iter(numbers), task)
        members = [self._member(sent, self._first if i == 0 else None) for i in range(size)]
        self._first = None
        unready, waited = 0, 0
        while True:
            for member in members:
                self._feed(member, line)
            busy = any(member.in_flight for member in members)
            if not busy and (line.empty or task.stopping()):
                return
            awaited = [one for member in members for one in member.awaited]
            ready, _ = ray.wait(awaited, num_returns=1, timeout=1)
            if not ready:
                waited += not busy
                if waited == PATIENCE:
                    self._say(UserWarning(self._no_room()))
                continue
            waited = 0
            member = next(m for m in members if ready[0] in m.awaited)
            try:
                if ready[0] is member.ready:
                    task.check(self._got(member.ready))
                    member.ready, unready = None, 0
                    continue
                shard = self._got(ready[0])
            except Lost as lost:
                members[members.index(member)] = self._member(sent)
                self._end(member.actor)
                if member.ready is not None:
                    unready += 1
                    self._mourn(f"while it loaded the model ({lost})")
                    if unready == DEATHS:
                        raise given_up(lost) from None
                    continue
                number = member.in_flight[0][0]
                self._mourn(f"over shard {number} ({lost})")
                given = line.given_back([number for number, _ in member.in_flight], str(lost))
            else:
                number, _ = member.in_flight.popleft()
                line.finished += 1
                given = shard
            if given is not None:
                done(task.cells(number))
                yield given

    def _feed(self, member: Member, line: "Line") -> None:
        """Give an actor as many shards as it may have; of those that stop, take back the queued."""
        if line.task.stopping():
            while len(member.in_flight) > 1:
                member.in_flight.pop()
        while member.ready is None and len(member.in_flight) < IN_FLIGHT:
            number = line.next()
            if number is None:
                return
            member.in_flight.append((number, member.actor.carry_out.remote(number)))

    def _connect(self) -> Room:
        if self._room is not None:
            return self._room
        import ray

        asked = self.options
        cpus = None if asked.workers is None else asked.workers * (asked.cpus or 1)
        self._held.enter_context(connected(asked.address, cpus))
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self._room = room(nodes, asked.workers, asked.cpus, asked.gpus)
        self._job_sent = self._put(self.job)
        self._kind = ray.remote(ShardActor)
        return self._room

    def _actor(self) -> Any:
        room = self._connect()
        place = {"num_cpus": room.cpus, "num_gpus": room.gpus}
        made = self._kind.options(**place, max_restarts=0, max_task_retries=0)
        actor = made.remote(self._job_sent, room.cpus)
        self._held.callback(self._end, actor)
        return actor

    def _member(self, sent: Any, actor: Any = None) -> Member:
        actor = self._actor() if actor is None else actor
        return Member(actor, actor.set_up.remote(sent))

    def _end(self, actor: Any) -> None:
        import ray

        ray.kill(actor)

    def _put(self, value: Any) -> Any:
        """Something as bytes in the object store.

        Pickled here, as Ray explains a failure by looking at every attribute, and one of a job is
        the model.
        """
        import ray
        from ray import cloudpickle

        try:
            return ray.put(cloudpickle.dumps(value))
        except (TypeError, AttributeError, PicklingError) as error:
            first = str(error).strip().splitlines()[0]
            raise InputError(
                f"the sweep cannot be sent to Ray's actors ({first}); whatever the model's "
                "function, the prompts and the interventions hold must be picklable"
            ) from None

    def _got(self, reference: Any) -> Any:
        """What an actor gave back, its warnings given here, and its errors raised.

        Without an answer, as the actor or its machine is gone, that is `Lost`.
        """
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            heard: Heard = ray.get(reference)
        except RayTaskError as error:
            raise error.cause from error
        except RayError as error:
            raise Lost(why(error)) from error
        for warning in heard.warnings:
            self._say(warning)
        return heard.value

    def _say(self, warning: Warning) -> None:
        """A warning, once, however many actors give it."""
        if str(warning) not in self._said:
            self._said.add(str(warning))
            warnings.warn(warning, stacklevel=3)

    def _mourn(self, when: str) -> None:
        warnings.warn(f"an actor died {when}; another takes its place", ActorDied, stacklevel=3)

    def _no_room(self) -> str:
        import ray

        room = self._connect()
        return (
            f"for {PATIENCE} s no actor has come up; each asks for {room.cpus} CPUs and "
            f"{room.gpus} GPUs of a cluster with {ray.cluster_resources()}"
        )


class Lost(Exception):
    """Why an answer will not come."""


@dataclass(eq=False)
class Line:
    """The shards that wait: those that were given back first, then the run's."""

    numbers: Iterator[int]
    task: Task
    again: deque[int] = field(default_factory=deque)
    deaths: dict[int, int] = field(default_factory=dict)
    finished: int = 0
    empty: bool = False

    def next(self) -> int | None:
        """The next shard; None if there is none, or none should be begun."""
        number = None
        if not self.task.stopping():
            number = self.again.popleft() if self.again else next(self.numbers, None)
        self.empty = number is None
        return number

    def given_back(self, numbers: list[int], reason: str) -> Shard | None:
        """Take shards of an actor that died of the first of them.

        A shard that three actors died of is recorded as failed, as prompts that raise are, and the
        others go on. If nothing was finished before that, the fault is the run's: an `InputError`.
        """
        first, *others = numbers
        self.deaths[first] = self.deaths.get(first, 0) + 1
        self.again.extendleft(reversed(others))
        self.empty = False
        if self.deaths[first] < DEATHS:
            self.again.appendleft(first)
            return None
        if not self.finished and self.task.wanted > 1:
            raise InputError(
                f"{DEATHS} actors died of shard {first} and none has finished any ({reason}); give "
                "each more memory: fewer workers, or a smaller batch in another folder"
            )
        said = f"ActorDied: {DEATHS} actors died of its shard, the last one since {reason}"
        return lost_shard(self.task, first, said[:LONGEST])


def lost_shard(task: Task, number: int, reason: str) -> Shard:
    """A shard without rows, all of whose prompts failed for a reason that is not their own."""
    prompts, manifest = task.ids[number], task.manifest
    about = {
        **task.belongs,
        "number": number,
        "prompts": prompts,
        "sides": [],
        "dropped": {},
        "failed": dict.fromkeys(prompts, reason),
        "computed": computed_by(manifest["receipt"]["executor"]),
    }
    return Shard(schema(manifest["plan"]["columns"]).empty_table(), about)


def given_up(lost: Lost) -> InputError:
    """The error for actors that cannot be set up."""
    return InputError(
        f"{DEATHS} actors in a row died before their first shard ({lost}); is there memory for the "
        "model in each of them? Ask for fewer workers, or for more of the cluster"
    )


def why(error: Exception) -> str:
    """Why Ray says an actor died, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next((line for line in lines if "because" in line), lines[0] if lines else "no reason")
    return said.split(" Some common causes")[0][:300]
