"""Options: plain values become the fields of a dataclass and plain values again; what does not fit is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from typing import Any, ClassVar, Optional, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mt_core.errors import ConfigError
from mt_core.options import from_dict, to_dict


class Point(StrEnum):
    before = auto()
    after = auto()


class Size(Enum):
    small = 1
    large = 2


@dataclass
class Options:
    """One field for every type that an option may have."""

    whole: int = 1
    real: float = 0.5
    text: str = ""
    switch: bool = False
    point: Point = Point.before
    size: Size = Size.small
    names: list[str] = field(default_factory=list)
    ranks: tuple[int, int, int] = (1, 2, 3)
    many: tuple[int, ...] = ()
    nested: list[list[int]] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)
    maybe: int | None = None
    older: Optional[float] = None  # noqa: UP045 - as a plugin may write it
    either: Union[int, list[int]] = 0  # noqa: UP007
    named: dict[str, tuple[Size, int]] = field(default_factory=dict)
    anything: Any = None
    mapping: Mapping[str, Any] = field(default_factory=dict)
    computed: int = field(default=7, init=False)

    constant: ClassVar[int] = 3


@dataclass
class Picky:
    rank: int

    def __post_init__(self) -> None:
        if self.rank > 8:
            raise ConfigError(f"rank={self.rank} is too much")
        if self.rank < 0:
            raise ValueError("rank below nothing")


CONVERTED = [
    ("whole", 3, 3),
    ("real", 2, 2.0),
    ("real", 1e-3, 1e-3),
    ("text", "a", "a"),
    ("switch", True, True),
    ("point", "after", Point.after),
    ("point", Point.after, Point.after),
    ("size", "large", Size.large),
    ("names", ("a", "b"), ["a", "b"]),
    ("ranks", [4, 5, 6], (4, 5, 6)),
    ("many", [], ()),
    ("many", [1, 2, 3, 4], (1, 2, 3, 4)),
    ("nested", [(1,), [2, 3]], [[1], [2, 3]]),
    ("weights", {"depth": 2}, {"depth": 2.0}),
    ("maybe", None, None),
    ("maybe", 4, 4),
    ("older", 1, 1.0),
    ("either", 3, 3),
    ("either", [3], [3]),
    ("named", {"a": ["large", 2]}, {"a": (Size.large, 2)}),
    ("anything", {"whatever": [1]}, {"whatever": [1]}),
    ("mapping", {"a": 1}, {"a": 1}),
]


@pytest.mark.parametrize(("name", "given_", "expected"), CONVERTED)
def test_a_plain_value_becomes_what_the_field_says(name: str, given_: Any, expected: Any) -> None:
    value = getattr(from_dict(Options, {name: given_}, "adapter x"), name)
    assert value == expected
    assert type(value) is type(expected)


REFUSED = [
    ("whole", 1.0, "whole=1.0: expected int"),
    ("whole", True, "whole=True: expected int"),
    ("whole", "3", "whole='3': expected int"),
    ("whole", None, "whole=None: expected int"),
    ("real", "fast", "real='fast': expected float"),
    ("real", False, "real=False: expected float"),
    ("text", 3, "text=3: expected str"),
    ("switch", 1, "switch=1: expected bool"),
    ("switch", "yes", "switch='yes': expected bool"),
    ("point", "under", "point='under': expected one of before, after"),
    ("point", ["before"], r"point=\['before'\]: expected one of before, after"),
    ("size", 2, "size=2: expected one of small, large"),
    ("names", "semseg", r"names='semseg': expected list\[str\]"),
    ("names", ["a", 3], "names=3: expected str"),
    ("ranks", [1, 2], r"ranks=\[1, 2\]: expected 3 values"),
    ("ranks", [1, 2, "3"], "ranks='3': expected int"),
    ("ranks", 3, r"ranks=3: expected tuple\[int, int, int\]"),
    ("nested", [1], r"nested=1: expected list\[int\]"),
    ("weights", {"depth": "much"}, "weights.depth='much': expected float"),
    ("weights", [("depth", 1)], r"weights=\[\('depth', 1\)\]: expected dict\[str, float\]"),
    ("maybe", "none", "maybe='none': expected int or NoneType"),
    ("either", "a", r"either='a': expected int or list\[int\]"),
    ("named", {"a": ["huge", 2]}, "named.a='huge': expected one of small, large"),
    ("mapping", [1], r"mapping=\[1\]: expected .*Mapping"),
]


@pytest.mark.parametrize(("name", "given_", "message"), REFUSED)
def test_a_value_of_another_type_is_refused_naming_the_option_and_what_it_expects(
    name: str, given_: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=f"^adapter x: {message}"):
        from_dict(Options, {name: given_}, "adapter x")


def test_an_unknown_option_is_refused_listing_those_there_are() -> None:
    with pytest.raises(ConfigError, match="adapter x has no option 'ran'; it has rank"):
        from_dict(Picky, {"ran": 3}, "adapter x")


@pytest.mark.parametrize("name", ["computed", "constant"])
def test_what_is_no_option_of_the_class_cannot_be_given(name: str) -> None:
    with pytest.raises(ConfigError, match=f"has no option '{name}'"):
        from_dict(Options, {name: 1}, "adapter x")


def test_a_class_without_options_says_so() -> None:
    @dataclass
    class Nothing:
        pass

    with pytest.raises(ConfigError, match="has no option 'a'; it has none"):
        from_dict(Nothing, {"a": 1}, "adapter x")


def test_an_option_that_must_be_given_is_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"adapter x: .*missing 1 required positional argument: 'rank'"):
        from_dict(Picky, {}, "adapter x")


def test_what_the_class_itself_refuses_is_told_in_its_words() -> None:
    with pytest.raises(ConfigError, match=r"^rank=9 is too much$"):
        from_dict(Picky, {"rank": 9}, "adapter x")
    with pytest.raises(ConfigError, match=r"^adapter x: rank below nothing$"):
        from_dict(Picky, {"rank": -1}, "adapter x")


def test_a_class_that_is_no_dataclass_is_its_authors_mistake() -> None:
    class Plain:
        pass

    with pytest.raises(ConfigError, match="adapter x: Plain is not a dataclass; its author must"):
        from_dict(Plain, {}, "adapter x")


def test_what_is_absent_keeps_its_default_and_lists_are_not_shared() -> None:
    one, two = from_dict(Options, {}, "x"), from_dict(Options, {}, "x")
    assert one == two == Options()
    assert one.names is not two.names


def test_plain_values_leave_out_what_is_computed() -> None:
    assert "computed" not in to_dict(Options())


@given(
    st.builds(
        Options,
        whole=st.integers(),
        real=st.floats(allow_nan=False, allow_infinity=False),
        text=st.text(max_size=3),
        switch=st.booleans(),
        point=st.sampled_from(Point),
        size=st.sampled_from(Size),
        names=st.lists(st.text(max_size=3), max_size=3),
        ranks=st.tuples(st.integers(), st.integers(), st.integers()),
        many=st.lists(st.integers()).map(tuple),
        nested=st.lists(st.lists(st.integers(), max_size=2), max_size=2),
        weights=st.dictionaries(st.sampled_from("ab"), st.floats(allow_nan=False, allow_infinity=False)),
        maybe=st.none() | st.integers(),
        older=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        either=st.integers() | st.lists(st.integers()),
        named=st.dictionaries(st.sampled_from("ab"), st.tuples(st.sampled_from(Size), st.integers())),
    )
)
def test_options_survive_json(options: Options) -> None:
    assert from_dict(Options, json.loads(json.dumps(to_dict(options))), "x") == options
