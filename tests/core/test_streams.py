"""Streams: the algebra of the batch axis, and the forks that move its rows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mt_core.streams import Fork, Stream, Streams

NAMES = ("semseg", "depth", "normals", "edges", "saliency")
TRUNK = Streams.trunk(("a", "b", "c"))


def side(*tasks: str) -> Stream:
    return Stream(tasks, side=True)


@st.composite
def partitions(draw: st.DrawFn, tasks: tuple[str, ...]) -> list[list[str]]:
    """The tasks in some number of groups, in any order."""
    groups: dict[int, list[str]] = {}
    for task in draw(st.permutations(tasks)):
        groups.setdefault(draw(st.integers(0, len(tasks) - 1)), []).append(task)
    return list(groups.values())


@st.composite
def layouts(draw: st.DrawFn) -> Streams:
    """Any layout: some tasks, forked any way, with or without side streams."""
    tasks = tuple(draw(st.permutations(NAMES))[: draw(st.integers(1, len(NAMES)))])
    carried = [Stream(tuple(group)) for group in draw(partitions(tasks))]
    sides = [side(task) for task in tasks if draw(st.booleans())]
    return Streams(tuple(draw(st.permutations([*carried, *sides]))))


@st.composite
def forks(draw: st.DrawFn) -> tuple[Streams, Streams]:
    """A layout, and one that it can fork into."""
    before = draw(layouts())
    groups = [group for stream in before.carried for group in draw(partitions(stream.tasks))]
    after = before.split(groups)
    return before, after.with_sides() if draw(st.booleans()) else after


def members(streams: Streams) -> set[tuple[frozenset[str], bool]]:
    """What streams there are, whatever the order of them and of their tasks."""
    return {(frozenset(stream.tasks), stream.side) for stream in streams}


def rows(streams: Streams, batch: int) -> Tensor:
    """What each row of a stacked batch is: (index of its stream, index of its image), (S * B, 2)"""
    return torch.cartesian_prod(torch.arange(len(streams)), torch.arange(batch)).view(-1, 2)


def test_every_encoder_starts_from_one_stream_for_all_tasks() -> None:
    assert [stream.tasks for stream in TRUNK] == [("a", "b", "c")]
    assert str(TRUNK) == "[a+b+c]"


def test_a_side_stream_is_marked_in_print() -> None:
    assert str(TRUNK.with_sides()) == "[a+b+c | ~a | ~b | ~c]"


def test_a_task_is_carried_at_most_once_and_has_at_most_one_side_stream() -> None:
    with pytest.raises(ValueError, match="a task is served twice by the carried streams of"):
        Streams((Stream(("a", "b")), Stream(("a",))))
    with pytest.raises(ValueError, match="a task is served twice by the side streams of"):
        Streams((side("a"), side("a", "b")))


def test_a_stream_serves_a_task() -> None:
    with pytest.raises(ValueError, match="serves no task"):
        Streams.trunk(())


def test_a_split_keeps_the_order_it_is_given() -> None:
    assert str(TRUNK.split([["c"], ["b", "a"]])) == "[c | b+a]"


def test_a_split_must_place_every_task() -> None:
    with pytest.raises(ValueError, match=r"b, c would be lost between \[a\+b\+c\] and \[a\]: place every task"):
        TRUNK.split([["a"]])


def test_a_split_cannot_merge_two_streams() -> None:
    with pytest.raises(ValueError, match=r"stream a\+b descends from no stream of \[a \| b \| c\]: streams fork"):
        TRUNK.per_task().split([["a", "b"], ["c"]])


def test_a_side_stream_leaves_only_at_a_tap() -> None:
    with pytest.raises(ValueError, match=r"~a, ~b, ~c cannot leave between .*: side streams leave at a tap"):
        TRUNK.with_sides().check_fork(TRUNK)


def test_sides_that_are_there_already_stay_the_streams_they_are() -> None:
    once = TRUNK.with_sides()
    assert once.with_sides() == once
    assert once.parents(once.with_sides()) == (0, 1, 2, 3)


def test_a_side_stream_serves_before_the_carried_one() -> None:
    assert [TRUNK.with_sides().serving(task) for task in "abc"] == [1, 2, 3]
    assert [TRUNK.serving(task) for task in "abc"] == [0, 0, 0]


def test_a_task_that_nobody_serves_is_named() -> None:
    with pytest.raises(ValueError, match=r"no stream of \[a\+b\+c\] serves 'x'"):
        TRUNK.serving("x")


def test_a_slice_of_a_layout_is_a_layout() -> None:
    assert isinstance(TRUNK.with_sides()[1:], Streams)
    assert TRUNK.with_sides()[1] == side("a")


@given(layouts())
def test_every_task_is_served_and_by_a_stream_of_its_own_side_first(streams: Streams) -> None:
    for task in streams.tasks:
        serving = streams[streams.serving(task)]
        assert task in serving.tasks
        assert serving.side == (task in streams.sides.tasks)


@given(layouts())
def test_carried_and_sides_are_all_there_is(streams: Streams) -> None:
    assert set(streams.carried) | set(streams.sides) == set(streams)
    assert len(streams.carried) + len(streams.sides) == len(streams)
    assert not streams.carried.sides
    assert not streams.sides.carried


@given(layouts())
def test_per_task_gives_each_task_one_stream_and_is_done_after_one_time(streams: Streams) -> None:
    apart = streams.per_task()
    assert all(len(stream.tasks) == 1 for stream in apart.carried)
    assert apart.carried.tasks == streams.carried.tasks
    assert apart.per_task() == apart


@given(forks())
def test_a_fork_serves_the_same_tasks_and_its_children_descend_from_streams_that_serve_them(
    fork: tuple[Streams, Streams],
) -> None:
    before, after = fork
    assert set(after.tasks) == set(before.tasks)
    assert before.forks_into(after)
    for child, parent in zip(after, before.parents(after), strict=True):
        assert set(child.tasks) <= set(before[parent].tasks)
        assert child == before[parent] or not before[parent].side


@given(forks())
def test_forks_only_go_one_way(fork: tuple[Streams, Streams]) -> None:
    before, after = fork
    assert after.forks_into(before) == (members(before) == members(after))


@given(forks(), st.data())
def test_a_fork_of_a_fork_is_a_fork(fork: tuple[Streams, Streams], data: st.DataObject) -> None:
    before, after = fork
    groups = [group for stream in after.carried for group in data.draw(partitions(stream.tasks))]
    assert before.forks_into(after.split(groups))


@given(forks(), st.integers(1, 3))
def test_a_fork_gives_every_child_its_parents_rows(fork: tuple[Streams, Streams], batch: int) -> None:
    before, after = fork
    moved = Fork(before, after)(rows(before, batch)).view(len(after), batch, 2)
    for child, parent, stream in zip(moved, before.parents(after), after, strict=True):
        assert (child[:, 0] == parent).all(), stream
        assert child[:, 1].tolist() == list(range(batch))


@given(forks(), st.integers(1, 3), st.data())
def test_forking_in_two_steps_is_forking_at_once(
    fork: tuple[Streams, Streams], batch: int, data: st.DataObject
) -> None:
    before, middle = fork
    after = middle.split([group for stream in middle.carried for group in data.draw(partitions(stream.tasks))])
    x = rows(before, batch)
    assert torch.equal(Fork(middle, after)(Fork(before, middle)(x)), Fork(before, after)(x))


@given(layouts(), st.integers(1, 3))
def test_a_fork_may_leave_streams_out(streams: Streams, batch: int) -> None:
    kept = streams.only(streams[::2])
    x = rows(streams, batch)
    assert torch.equal(Fork(streams, kept)(x), x.view(len(streams), batch, 2)[::2].flatten(0, 1))


def test_a_fork_into_the_same_streams_or_into_none_copies_nothing() -> None:
    x = torch.rand(6, 2)
    for after in (TRUNK.per_task(), Streams(())):
        assert Fork(TRUNK.per_task(), after)(x) is x


def test_a_fork_of_one_stream_passes_the_gradients_of_all_its_children_back() -> None:
    x = torch.rand(2, 3, requires_grad=True)
    Fork(TRUNK, TRUNK.per_task())(x).sum().backward()
    assert x.grad is not None
    assert (x.grad == 3).all()
