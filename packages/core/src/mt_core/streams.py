"""Task streams: how many copies of the tokens flow through the encoder, and which tasks each serves.

An adapter makes an encoder task-specific by *forking* a stream. Streams are stacked along the batch axis,
stream-major, so whatever treats the batch as independent rows (norms, attention, windows, convolutions) works on them
unchanged:

    x: (S * B, ...)    rows [s * B, (s + 1) * B) belong to stream s

The layout is static: settled when an adapter is attached, never looked up while training.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from torch import Tensor


@dataclass(frozen=True)
class Stream:
    """One copy of the tokens and the tasks it serves.

    A *side* stream leaves the encoder at the next tap; any other is carried on to the next stage.
    """

    tasks: tuple[str, ...]
    side: bool = False

    def __str__(self) -> str:
        return ("~" if self.side else "") + "+".join(self.tasks)


@dataclass(frozen=True)
class Streams(Sequence[Stream]):
    """The layout of the batch axis: an ordered set of streams.

    Raises:
        ValueError: if two carried streams, or two side streams, serve the same task, or a stream serves none.
    """

    members: tuple[Stream, ...]

    def __post_init__(self) -> None:
        for side in (False, True):
            served = [task for stream in self.members if stream.side == side for task in stream.tasks]
            if len(served) != len(set(served)):
                raise ValueError(f"a task is served twice by the {'side' if side else 'carried'} streams of {self}")
        if not all(stream.tasks for stream in self.members):
            raise ValueError(f"a stream of {self} serves no task")

    @classmethod
    def trunk(cls, tasks: Iterable[str]) -> Streams:
        """The single stream that every encoder starts from."""
        return cls((Stream(tuple(tasks)),))

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task served, each once."""
        return tuple(dict.fromkeys(task for stream in self.members for task in stream.tasks))

    @property
    def carried(self) -> Streams:
        """What is left after a tap has let the side streams go."""
        return Streams(tuple(stream for stream in self.members if not stream.side))

    @property
    def sides(self) -> Streams:
        """The streams that leave at the next tap."""
        return Streams(tuple(stream for stream in self.members if stream.side))

    def per_task(self) -> Streams:
        """Fork every carried stream into one stream per task."""
        return self.split([task] for stream in self.carried for task in stream.tasks)

    def split(self, groups: Iterable[Iterable[str]]) -> Streams:
        """Fork the carried streams into one per group of tasks; side streams stay as they are.

        Raises:
            ValueError: if a group takes tasks from two streams (which would merge them), or a task is in no group.
        """
        children = Streams((*(Stream(tuple(group)) for group in groups), *self.sides))
        self.check_fork(children)
        return children

    def with_sides(self) -> Streams:
        """The carried streams as they are, and beside them a side stream for each task."""
        return Streams((*self.carried, *(Stream((task,), side=True) for task in self.carried.tasks)))

    def serving(self, task: str) -> int:
        """Index of the stream that gives `task` its features: its side stream, or else the carried one.

        Raises:
            ValueError: if no stream serves it.
        """
        found = [i for i, stream in enumerate(self.members) if task in stream.tasks]
        if not found:
            raise ValueError(f"no stream of {self} serves {task!r}")
        return next((i for i in found if self.members[i].side), found[0])

    def parent(self, child: Stream) -> int:
        """Index of the stream that `child` continues or descends from.

        Raises:
            ValueError: if there is none: streams fork, they never merge.
        """
        if child in self.members:
            return self.members.index(child)
        for i, stream in enumerate(self.members):
            if not stream.side and set(child.tasks) <= set(stream.tasks):
                return i
        raise ValueError(f"stream {child} descends from no stream of {self}: streams fork, they never merge")

    def parents(self, children: Iterable[Stream]) -> tuple[int, ...]:
        """For every child, the index of the stream it descends from."""
        return tuple(self.parent(child) for child in children)

    def check_fork(self, children: Streams) -> None:
        """Refuse what this cannot fork into.

        Raises:
            ValueError: if a child descends from no stream, or a task or a side stream is lost on the way.
        """
        self.parents(children)
        if lost := [task for task in self.carried.tasks if task not in children.carried.tasks]:
            raise ValueError(f"{', '.join(lost)} would be lost between {self} and {children}: place every task")
        if left := [str(stream) for stream in self.sides if stream not in children]:
            raise ValueError(
                f"{', '.join(left)} cannot leave between {self} and {children}: side streams leave at a tap"
            )

    def forks_into(self, children: Streams) -> bool:
        """Whether `children` is this, further forked or as it is."""
        try:
            self.check_fork(children)
        except ValueError:
            return False
        return True

    def only(self, wanted: Collection[Stream]) -> Streams:
        """Those of the streams that are in `wanted`, in this order."""
        return Streams(tuple(stream for stream in self.members if stream in wanted))

    @overload
    def __getitem__(self, i: int) -> Stream: ...

    @overload
    def __getitem__(self, i: slice) -> Streams: ...

    def __getitem__(self, i: int | slice) -> Stream | Streams:
        return Streams(self.members[i]) if isinstance(i, slice) else self.members[i]

    def __len__(self) -> int:
        return len(self.members)

    def __iter__(self) -> Iterator[Stream]:
        return iter(self.members)

    def __str__(self) -> str:
        return "[" + " | ".join(map(str, self.members)) + "]"


class Fork:
    """Repeats each stream for its children and leaves out those that have none: (S * B, ...) -> (S' * B, ...).

    Settled at construction: a call sees plain integers, so that `torch.compile` traces it whole. Where there are no
    children at all nobody reads the result, and the input is handed through.
    """

    def __init__(self, before: Streams, after: Streams) -> None:
        self.count = len(before)
        self.index = list(before.parents(after))
        self.idle = not self.index or self.index == list(range(self.count))
        self.repeats = len(self.index) if self.count == 1 else 0

    def __call__(self, x: Tensor) -> Tensor:
        if self.idle:
            return x
        streams: Tensor = x.unflatten(0, (self.count, -1))  # (S, B, ...)
        if self.repeats:
            return streams.expand(self.repeats, *streams.shape[1:]).flatten(0, 1)  # (S' * B, ...)
        return streams[self.index].flatten(0, 1)  # (S' * B, ...)
