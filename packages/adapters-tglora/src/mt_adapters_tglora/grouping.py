"""From similarities to a tree of task groups (Gangwar et al., section 3.3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations

EXACT = 10  # tasks up to which the last stage is searched exactly (a second at most); our bound, the paper names none

Group = tuple[int, ...]  # tasks by their number, ascending
Partition = tuple[Group, ...]  # groups by their first task, ascending
Similarity = Sequence[Sequence[float]]


def score(group: Group, similarity: Similarity) -> float:
    """What a group adds to the score of a partition: the inner sum of eq. 6, of the affinities of eq. 5."""
    if len(group) == 1:
        return 0.0
    return sum(similarity[s][t] for s in group for t in group if s != t) / (len(group) - 1)


def total(partition: Partition, similarity: Similarity) -> float:
    """The score of a partition, eq. 6."""
    return sum(score(group, similarity) for group in partition)


def tree(similarity: Similarity, counts: Sequence[int]) -> list[Partition]:
    """The groups of every stage: the last stage by search, those before it by merging. They only split going deeper.

    Args:
        similarity: (T, T), of tasks to one another.
        counts: how many groups each stage has, not decreasing, at most T.
    """
    stages = [last_stage(similarity, counts[-1])]
    for count in reversed(counts[:-1]):
        stages.append(merge(stages[-1], count, similarity))
    return stages[::-1]


def last_stage(similarity: Similarity, count: int) -> Partition:
    """The best partition of all tasks into `count` groups.

    Exact for up to `EXACT` tasks. Beyond, the number of partitions forbids it: groups are then merged from single
    tasks by Algorithm 1, which need not find the best (ours; the paper leaves it open).
    """
    tasks = range(len(similarity))
    if len(tasks) > EXACT:
        return merge(tuple((task,) for task in tasks), count, similarity)
    return search(similarity, count)


def search(similarity: Similarity, count: int) -> Partition:
    """The partition into `count` groups of the highest score, by dynamic programming over sets of tasks.

    The best way to part what is left does not depend on the groups already closed, so each set is solved once: 3^T
    steps instead of one for every partition. Of equals the first is taken, smaller groups of the first task before
    larger ones, and those of earlier tasks before others.
    """

    @cache
    def best(left: Group, groups: int) -> tuple[float, Partition]:
        if groups == 1:
            return score(left, similarity), (left,)
        return max((opened(left, group, groups) for group in _with_first(left, groups)), key=lambda found: found[0])

    def opened(left: Group, group: Group, groups: int) -> tuple[float, Partition]:
        value, others = best(tuple(task for task in left if task not in group), groups - 1)
        return score(group, similarity) + value, (group, *others)

    return best(tuple(range(len(similarity))), count)[1]


def merge(partition: Partition, count: int, similarity: Similarity) -> Partition:
    """Algorithm 1: merge two groups at a time, those that leave the highest score, until `count` are left.

    The paper starts each round from a score of 0, so that with negative similarities no merger is accepted and it
    never ends; here any merger is better than none. Of equals the first pair is taken.
    """
    while len(partition) > count:
        i, j = max(combinations(range(len(partition)), 2), key=lambda pair: _gain(partition, pair, similarity))
        joined = tuple(sorted(partition[i] + partition[j]))
        partition = (*partition[:i], joined, *partition[i + 1 : j], *partition[j + 1 :])
    return partition


def in_order(tasks: int, counts: Sequence[int]) -> list[Partition]:
    """Groups where nothing is known of the tasks: each split takes the last task off the first group."""
    return [
        (tuple(range(tasks - count + 1)), *((task,) for task in range(tasks - count + 1, tasks))) for count in counts
    ]


def paper_counts(tasks: int, stages: int) -> list[int]:
    """How many groups each stage has by the paper's rule (section 4.4): a group for each task in the last stage, one
    fewer in each stage before it, all tasks in the first. A single stage is the last."""
    counts = [max(1, tasks - (stages - 1 - stage)) for stage in range(stages)]
    return [1, *counts[1:]] if stages > 1 else counts


def _gain(partition: Partition, pair: tuple[int, ...], similarity: Similarity) -> float:
    """By how much the partition's score grows if two of its groups become one."""
    one, other = (partition[i] for i in pair)
    return score(tuple(sorted(one + other)), similarity) - score(one, similarity) - score(other, similarity)


def _with_first(left: Group, groups: int) -> Iterator[Group]:
    """The groups that the first task can be in, such that enough tasks are left for the other groups."""
    first, others = left[0], left[1:]
    for size in range(len(others) - groups + 2):
        yield from ((first, *companions) for companions in combinations(others, size))
