"""Options of a plugin: from plain values (a config, a JSON file) to its dataclass and back, strictly checked."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import ConfigError

T = TypeVar("T")


def from_dict(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build the dataclass `cls` from plain values; lists become tuples, names enum members, where its fields say so.

    Args:
        cls: a dataclass.
        values: by field name; fields that are absent keep their defaults.
        where: names the options in messages, for example "adapter mtlora".

    Raises:
        ConfigError: if a name is unknown, a value has the wrong type, or `cls` itself refuses the values.
    """
    if not dataclasses.is_dataclass(cls):
        raise ConfigError(f"{where}: {cls.__name__} is not a dataclass; its author must decorate it with @dataclass")
    fields = [field.name for field in dataclasses.fields(cls) if field.init]
    if unknown := [name for name in values if name not in fields]:
        raise ConfigError(f"{where} has no option {unknown[0]!r}; it has {', '.join(fields) or 'none'}")
    hints = get_type_hints(cls)
    given = {name: _convert(hints[name], value, f"{where}: {name}") for name, value in values.items()}
    try:
        return cls(**given)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error


def to_dict(options: Any) -> dict[str, Any]:
    """The fields of a dataclass as plain values that JSON can hold."""
    return {field.name: _plain(getattr(options, field.name)) for field in dataclasses.fields(options) if field.init}


def refuse_unknown(option: str, given: Sequence[str], known: Sequence[str]) -> None:
    """Raises ConfigError if an option lists a name that is none of `known`."""
    if unknown := sorted(set(given) - set(known)):
        raise ConfigError(f"{option}={list(given)}: {unknown[0]!r} is none of {', '.join(known)}")


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(arguments, value, where)
    if origin is dict and isinstance(value, Mapping):
        return {str(key): _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if origin in (list, tuple) and isinstance(value, (list, tuple)):
        return _convert_sequence(origin, arguments, value, where)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _convert_enum(hint, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    plain = hint if isinstance(hint, type) else origin
    if hint is Any or (isinstance(plain, type) and isinstance(value, plain) and not _is_wrong_bool(plain, value)):
        return value
    raise ConfigError(f"{where}={value!r}: expected {_name(hint)}")


def _convert_union(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    options = [argument for argument in arguments if argument is not type(None)]
    for argument in options:
        try:
            return _convert(argument, value, where)
        except ConfigError:
            continue
    raise ConfigError(f"{where}={value!r}: expected {' or '.join(map(_name, arguments))}")


def _convert_sequence(origin: Any, arguments: tuple[Any, ...], value: list[Any] | tuple[Any, ...], where: str) -> Any:
    if origin is tuple and Ellipsis not in arguments:
        if len(value) != len(arguments):
            raise ConfigError(f"{where}={list(value)}: expected {len(arguments)} values")
        return tuple(_convert(hint, item, where) for hint, item in zip(arguments, value, strict=True))
    return origin(_convert(arguments[0], item, where) for item in value)


def _convert_enum(hint: type[Enum], value: Any, where: str) -> Enum:
    if isinstance(value, hint):
        return value
    if not isinstance(value, str) or value not in hint.__members__:
        raise ConfigError(f"{where}={value!r}: expected one of {', '.join(hint.__members__)}")
    return hint[value]


def _is_wrong_bool(plain: type, value: Any) -> bool:
    return isinstance(value, bool) and plain is not bool


def _name(hint: Any) -> str:
    return getattr(hint, "__name__", None) if isinstance(hint, type) and not get_args(hint) else str(hint)  # type: ignore[return-value]


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value
