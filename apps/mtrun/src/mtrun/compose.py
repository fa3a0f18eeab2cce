"""Composes the configuration of a verb with Hydra, and says clearly what cannot be composed."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from mt_core.errors import ConfigError

from .source import Root, composing, installed, is_choice

log = logging.getLogger(__name__)

Job = Callable[[dict[str, Any]], None]
PRINTING = ("--cfg", "-c", "--info", "-i", "--shell-completion", "-sc", "--hydra-help")


def compose(root: Root, arguments: Sequence[str], job: Job) -> None:
    """Let Hydra read the command line; `job` gets each composed configuration as plain values, one or many.

    Raises:
        ConfigError: if the command line cannot be composed.
        Exception: whatever a job raised first; the other jobs of a sweep have run then, and their errors are logged.
    """
    failures: list[Exception] = []

    def task(config: DictConfig) -> None:
        # Hydra would wrap what a job raises into messages of its own.
        try:
            job(plain(config))
        except Exception as error:  # noqa: BLE001 - raised below
            failures.append(error)

    refuse_missing(root, arguments)
    with composing(root), _command_line(arguments):
        try:
            hydra.main(config_path="pkg://mtrun.conf", config_name=root.name, version_base="1.3")(task)()
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(explain(error, root)) from error
        except ValueError as error:
            raise ConfigError(f"{error}; see mtrun --help") from error  # flags that exclude each other
    for failure in failures[1:]:
        log.error("%s", failure)
    if failures:
        raise failures[0]


def plain(config: DictConfig) -> dict[str, Any]:
    """A composed config as plain values, interpolations resolved.

    Raises:
        ConfigError: if a value is missing or refers to what is not there.
    """
    try:
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True, enum_to_str=True)
    except MissingMandatoryValue as error:
        raise ConfigError(f"{error.full_key} has no value; give {error.full_key}=VALUE") from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or 'the configuration'}: {str(error).splitlines()[0]}") from error
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def refuse_missing(root: Root, arguments: Sequence[str]) -> None:
    """Look whether every plugin that the command line names is installed, before any is imported.

    Raises:
        ConfigError: if one is not, or an override cannot be read.
    """
    for group, usual in root.choices().items():
        if group in root.config.groups:
            given = value_of(arguments, group)
            names = given.list if isinstance(given, ChoiceSweep) else [usual if given is None else given]
            for name in names:
                if isinstance(name, str) and not is_choice(group, name):
                    raise ConfigError(installed(group).missing(name))


def is_printing(arguments: Sequence[str]) -> bool:
    """Whether Hydra only prints something about the configuration, and no job runs."""
    return any(text.partition("=")[0] in PRINTING for text in arguments)


def is_override(word: str) -> bool:
    """Whether a word of the command line is KEY=VALUE, +KEY=VALUE or ~KEY, and no flag or the value of one."""
    return not word.startswith("-") and ("=" in word or word.startswith("~"))


def value_of(arguments: Sequence[str], key: str) -> Any:
    """What the command line sets `key` to, before anything is composed; None if it does not.

    Raises:
        ConfigError: if an override cannot be read.
    """
    overrides = [text for text in arguments if text.startswith(f"{key}=")]
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except OverrideParseException as error:
        raise ConfigError(_unreadable(error)) from error
    return parsed[-1].value() if parsed else None


def explain(error: Exception, root: Root) -> str:
    """One message about an error of Hydra or OmegaConf."""
    if isinstance(error, OverrideParseException):
        return _unreadable(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _missing(error.missing_cfg_file)
    cause = error.__cause__
    if isinstance(cause, (ConfigAttributeError, ConfigKeyError)):
        return _unknown(cause, root)
    if isinstance(cause, OmegaConfBaseException):
        return f"{cause.full_key or 'the configuration'}: {str(cause).splitlines()[0]}"
    return " ".join(str(error).split())


def _unreadable(error: OverrideParseException) -> str:
    lines = [line for line in error.message.splitlines() if not line.startswith("See http")]
    reason = " ".join(lines[1:] or lines)
    return (
        f"{error.override!r} cannot be read ({reason}); expected KEY=VALUE, lists as KEY=[A,B]; "
        f"quote what the shell would change, and values with special characters: 'KEY=\"a b\"'"
    )


def _missing(path: str) -> str:
    """A config that no source has, as `group/name`."""
    group, _, name = path.partition("/")
    if group == "experiment":
        return f"there is no experiment {name!r}; mtrun --help lists what is shipped, --config-dir DIR adds your own"
    return installed(group).missing(name)


def _unknown(error: OmegaConfBaseException, root: Root) -> str:
    """A key that the configuration does not have, and the nearest that it has."""
    parent = error.parent_node
    keys = [str(key) for key in parent] if isinstance(parent, DictConfig) else []
    keys = [key for key in keys if key not in ("hydra", "name")]
    head, _, last = str(error.full_key).rpartition(".")
    where = f"{head}." if head else ""
    guess = get_close_matches(last, keys, n=1)
    hint = f"did you mean {where}{guess[0]}? " if guess else ""
    if parent is not None and "name" in parent and not keys:
        hint = f"{head}={parent['name']} has no options of its own; name a {head} to set its options. "
    listed = f"{head or 'it'} has {', '.join(keys)}" if keys else ""
    return f"mtrun {root.name} has no option {error.full_key!r}; {hint}{listed}".rstrip("; ")


@contextmanager
def _command_line(arguments: Sequence[str]) -> Iterator[None]:
    """What Hydra takes for the command line. Its files of a sweep go where they vanish, its errors are raised."""
    before, errors = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    with tempfile.TemporaryDirectory(prefix="mtrun-") as folder:
        overrides = [text for text in arguments if is_override(text)]
        flags = [text for text in arguments if not is_override(text)]  # before all overrides, as argparse needs them
        sys.argv, os.environ["HYDRA_FULL_ERROR"] = ["mtrun", *flags, *overrides, f"hydra.sweep.dir={folder}"], "1"
        try:
            yield
        finally:
            sys.argv = before
            if errors is None:
                del os.environ["HYDRA_FULL_ERROR"]
            else:
                os.environ["HYDRA_FULL_ERROR"] = errors
