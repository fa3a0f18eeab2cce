"""Every `raise` is matched by a test: three words in a row of its message stand in a string of some test.

What an f-string fills in may stand for any one word among the three. Three words that several messages share prove
nothing, unless a message has no others. A message that is made by a function has the words of that function. A raise
without words is matched by a `pytest.raises` of its class.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .workspace import dists, modules_of_tests

ENOUGH = 3  # words in a row
HOLE = "{}"  # what is filled in
BREAK = "|"  # whatever it is, it is no word

Words = tuple[str, ...]


@dataclass(frozen=True)
class Raise:
    """A `raise` of an error.

    Attributes:
        where: file and line.
        code: the statement.
        error: the class, or the function that makes the error.
        message: its words.
    """

    where: str
    code: str
    error: str
    message: Words

    @property
    def windows(self) -> set[Words]:
        """Every three words in a row, one of which may be filled in; of a shorter message, all."""
        size = min(ENOUGH, sum(word is not BREAK for word in self.message))
        return {window for window in windows(self.message, size) if window.count(HOLE) < max(1, size - 1)}


def words(text: str) -> Words:
    """'size=[{}]: x\\.y .* z' -> size, HOLE, x, y, BREAK, z: as in a message, or in a pattern that it matches"""
    tokens = re.findall(r"\{\}|\w+|[.\w]?[*+]|\|", re.sub(r"\\[nbsSdw]\+?|\\(\W)", r" \1", text))
    return tuple(token if token == HOLE or token.isalnum() or "_" in token else BREAK for token in tokens)


def windows(message: Sequence[str], size: int) -> Iterator[Words]:
    for i in range(len(message) - size + 1):
        if size and BREAK not in (window := tuple(message[i : i + size])):
            yield window


def raises(tree: ast.AST, where: str, functions: Mapping[str, ast.FunctionDef]) -> Iterator[Raise]:
    """Those that make an error; not those that pass one on, and no exits."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and _called(node.exc) != "SystemExit":
            code = ast.unparse(ast.Raise(node.exc, None))
            yield Raise(f"{where}:{node.lineno}", code, _called(node.exc), tuple(_message(node.exc, functions)))


def _message(call: ast.Call, functions: Mapping[str, ast.FunctionDef]) -> Iterator[str]:
    """The words of the arguments, and those of the function that makes the error, or the message."""
    found = [word for argument in call.args for word in (*words(_text(argument)), BREAK)]
    yield from found
    calls = [node for node in ast.walk(call) if isinstance(node, ast.Call)]
    makers = {_called(made) for made in (calls if set(found) <= {BREAK, HOLE} else calls[:1])}
    for text in strings(functions[name] for name in makers if name in functions):
        yield from (*words(text), BREAK)


def _text(node: ast.AST) -> str:
    """A string constant, or an f-string with holes; "" of anything else."""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) or HOLE for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else ast.unparse(call.func)


def strings(trees: Iterable[ast.AST]) -> Iterator[str]:
    """The strings in a piece of code, f-strings whole, docstrings left out."""
    for tree in trees:
        inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        inner |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        yield from (text for node in ast.walk(tree) if id(node) not in inner and (text := _text(node)))


def untested(found: Sequence[Raise], tests: Iterable[ast.AST]) -> list[Raise]:
    """Those that no test matches."""
    trees = list(tests)
    held = {held for text in strings(trees) for size in range(1, ENOUGH + 1) for held in _held(words(text), size)}
    expected = {ast.unparse(argument) for tree in trees for argument in _arguments_of_raises(tree)}
    counts = Counter(window for item in found for window in item.windows)
    return [item for item in found if not _is_tested(item, counts, held, expected)]


def _held(text: Words, size: int) -> Iterator[Words]:
    """Every few words in a row, and the same with each of them filled in."""
    for window in windows(text, size):
        yield window
        yield from ((*window[:i], HOLE, *window[i + 1 :]) for i in range(size))


def _is_tested(item: Raise, counts: Counter[Words], held: set[Words], expected: set[str]) -> bool:
    if not item.windows:
        return item.error in expected
    distinctive = {window for window in item.windows if counts[window] == 1} or item.windows
    return not distinctive.isdisjoint(held)


def _arguments_of_raises(tree: ast.AST) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _called(node) == "raises":
            yield from node.args[:1]


def test_every_raise_is_matched_by_a_test() -> None:
    modules = [module for dist in dists() for module in dist.modules]
    functions = {n.name: n for m in modules for n in ast.walk(m.tree) if isinstance(n, ast.FunctionDef)}
    found = [item for module in modules for item in raises(module.tree, str(module), functions)]
    assert len(found) > 50
    missing = untested(found, [module.tree for module in modules_of_tests()])
    assert not missing, "no test matches\n" + "\n".join(f"{item.where}: {item.code[:200]}" for item in missing)


def found_in(source: str) -> list[Raise]:
    tree = ast.parse(source)
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    return list(raises(tree, "f.py", functions))


def lines(found: list[Raise], *held: str) -> list[int]:
    """Where the raises stand that no test matches, if tests hold these strings."""
    return [int(item.where.partition(":")[2]) for item in untested(found, [ast.parse(f"x = {held!r}")])]


def test_a_message_is_matched_by_three_of_its_words() -> None:
    found = found_in('raise A(f"{x} is much too large, try {y} instead")\nraise B(f"size={x!r} is it")\nraise error')
    assert lines(found) == [1, 2]
    assert lines(found, "is much too") == [2]
    assert lines(found, "try 3 instead", "size=4 is") == []
    assert lines(found, "too much is large", "it is size") == [1, 2]


def test_a_docstring_or_a_comment_is_no_test() -> None:
    found = found_in("raise A('is much too large')")
    assert untested(found, [ast.parse('"""is much too large"""  # is much too large')]) == found


def test_words_on_both_sides_of_anything_do_not_stand_in_a_row() -> None:
    assert lines(found_in("raise A('is much too large')"), "is much .* too large") == [1]
    assert words(r"f\(x\) is\s+wrong\. a|b") == ("f", "x", "is", "wrong", "a", BREAK, "b")


def test_what_several_messages_share_proves_nothing() -> None:
    found = found_in("raise A('one: expected one of')\nraise A('two: expected one of')\nraise A('expected one of')")
    assert lines(found, "expected one of") == [1, 2]
    assert lines(found, "two: expected one") == [1, 3]


def test_a_short_message_is_matched_whole_and_none_at_all_by_its_class() -> None:
    found = found_in("raise A('too large')\nraise IndexError(i)")
    assert lines(found, "too small", "large") == [1, 2]
    assert lines(found, "too large") == [2]
    assert untested(found[1:], [ast.parse("with pytest.raises(IndexError): f()")]) == []


def test_a_message_that_a_function_makes_has_its_words() -> None:
    found = found_in("def why(x):\n    return f'{x} is not installed'\nraise A(why(x))")
    assert lines(found) == [3]
    assert lines(found, "it is not installed") == []
