"""The search finds what trying every partition finds; the tree only splits going deeper; merging always ends."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mt_adapters_tglora import grouping
from mt_adapters_tglora.grouping import Partition, in_order, last_stage, merge, paper_counts, search, total, tree

Matrix = list[list[float]]


def matrix(tasks: int, seed: int, low: float = -1.0, high: float = 1.0) -> Matrix:
    """Symmetric, 1 on the diagonal."""
    generator = random.Random(seed)
    found = [[1.0] * tasks for _ in range(tasks)]
    for i in range(tasks):
        for j in range(i):
            found[i][j] = found[j][i] = generator.uniform(low, high)
    return found


def partitions(tasks: list[int]) -> Iterator[list[list[int]]]:
    """Every partition: the first task alone, or put into each group of a partition of the others."""
    if not tasks:
        yield []
        return
    for others in partitions(tasks[1:]):
        yield [[tasks[0]], *others]
        for i, group in enumerate(others):
            yield [*others[:i], [tasks[0], *group], *others[i + 1 :]]


def literal_score(partition: list[list[int]], similarity: Matrix) -> float:
    """Eq. 5 and 6, term by term."""
    score = 0.0
    for group in partition:
        for t in group:
            score += 0 if len(group) == 1 else sum(similarity[t][s] for s in group if s != t) / (len(group) - 1)
    return score


def as_sets(partition: object) -> set[frozenset[int]]:
    return {frozenset(group) for group in partition}  # type: ignore[attr-defined]


def literal_merge(partition: list[list[int]], count: int, similarity: Matrix) -> list[list[int]]:
    """Algorithm 1, scoring whole partitions, from a score below any."""
    while len(partition) > count:
        best, best_score = partition, float("-inf")
        for i in range(len(partition)):
            for j in range(i + 1, len(partition)):
                others = [group for k, group in enumerate(partition) if k not in (i, j)]
                candidate = [partition[i] + partition[j], *others]
                if literal_score(candidate, similarity) > best_score:
                    best, best_score = candidate, literal_score(candidate, similarity)
        partition = best
    return partition


@pytest.mark.parametrize("tasks", range(1, 8))
@pytest.mark.parametrize("seed", range(3))
def test_exact_search_is_brute_force_over_all_partitions(tasks: int, seed: int) -> None:
    similarity = matrix(tasks, seed)
    every = list(partitions(list(range(tasks))))
    assert len(every) == [1, 2, 5, 15, 52, 203, 877][tasks - 1]
    for count in range(1, tasks + 1):
        best = max((p for p in every if len(p) == count), key=lambda p: literal_score(p, similarity))
        found = search(similarity, count)
        assert as_sets(found) == as_sets(best)
        assert total(found, similarity) == pytest.approx(literal_score(best, similarity), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_merging_is_algorithm_1(seed: int) -> None:
    similarity = matrix(6, seed)
    singles = [[task] for task in range(6)]
    for count in range(1, 7):
        ours = merge(tuple((task,) for task in range(6)), count, similarity)
        assert as_sets(ours) == as_sets(literal_merge(singles, count, similarity))


@given(st.sampled_from([1, 2, 3, 4, 5, 6, 7, 11, 12]), st.integers(1, 5), st.integers(0, 2**32), st.data())
@settings(max_examples=60, deadline=None)
def test_groups_only_split_going_deeper_and_are_as_many_as_asked_for(
    tasks: int, stages: int, seed: int, data: st.DataObject
) -> None:
    counts = sorted(data.draw(st.lists(st.integers(1, tasks), min_size=stages, max_size=stages)))
    for found in (tree(matrix(tasks, seed), counts), in_order(tasks, counts)):
        check_tree(found, tasks, counts)


@given(st.integers(2, 8), st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_with_negative_similarities_merging_ends_with_the_groups_asked_for(tasks: int, seed: int) -> None:
    counts = list(range(1, tasks + 1))
    check_tree(tree(matrix(tasks, seed, low=-1.0, high=-0.01), counts), tasks, counts)


def check_tree(stages: list[Partition], tasks: int, counts: list[int]) -> None:
    assert [len(partition) for partition in stages] == counts
    for partition in stages:
        assert sorted(task for group in partition for task in group) == list(range(tasks))
    for above, below in pairwise(stages):
        assert all(any(set(group) <= set(larger) for larger in above) for group in below)


def test_two_pairs_that_agree_are_found() -> None:
    similarity = [[1, -0.2, 0.6, 0.1], [-0.2, 1, 0.0, 0.5], [0.6, 0.0, 1, -0.1], [0.1, 0.5, -0.1, 1]]
    assert search(similarity, 2) == ((0, 2), (1, 3))
    assert tree(similarity, [1, 2, 2, 4])[1:3] == [((0, 2), (1, 3)), ((0, 2), (1, 3))]
    assert merge(((0,), (1,), (2,), (3,)), 2, similarity) == ((0, 2), (1, 3))


def test_of_equals_the_first_is_taken() -> None:
    nothing = [[0.0] * 4 for _ in range(4)]
    assert search(nothing, 2) == ((0,), (1, 2, 3))
    assert merge(((0,), (1,), (2,), (3,)), 2, nothing) == ((0, 1, 2), (3,))


def test_the_last_stage_is_searched_exactly_for_up_to_ten_tasks() -> None:
    assert grouping.EXACT == 10
    for tasks in (7, 10):
        assert last_stage(matrix(tasks, seed=0), 4) == search(matrix(tasks, seed=0), 4)


def test_beyond_ten_tasks_groups_are_merged_from_single_tasks() -> None:
    similarity = matrix(11, seed=0)
    assert as_sets(last_stage(similarity, 4)) == as_sets(literal_merge([[t] for t in range(11)], 4, similarity))


@pytest.mark.parametrize(
    ("tasks", "stages", "counts"),
    [
        pytest.param(4, 4, [1, 2, 3, 4], id="PASCAL"),
        pytest.param(3, 4, [1, 1, 2, 3], id="NYUD"),
        pytest.param(8, 1, [8], id="one_stage"),
        pytest.param(8, 4, [1, 6, 7, 8], id="more_tasks_than_stages"),
        pytest.param(1, 4, [1, 1, 1, 1], id="one_task"),
    ],
)
def test_the_papers_rule_for_the_number_of_groups(tasks: int, stages: int, counts: list[int]) -> None:
    assert paper_counts(tasks, stages) == counts


def test_without_a_plan_each_split_takes_the_last_task_off_the_first_group() -> None:
    assert in_order(4, [1, 2, 4]) == [((0, 1, 2, 3),), ((0, 1, 2), (3,)), ((0,), (1,), (2,), (3,))]
