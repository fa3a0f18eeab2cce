"""Finds the installed plugins and looks up what they contribute."""

from __future__ import annotations

import os
import pkgutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from importlib.metadata import Distribution, distributions

import pluggy

from . import hookspecs
from .catalogue import HOMES
from .errors import ConfigError, PluginError

KINDS = ("backbones", "adapters", "decoders", "datasets", "tasks")


class Registry(Mapping[str, type]):
    """The classes of one kind, by name, and the dist each came from."""

    def __init__(self, kind: str, found: Mapping[str, tuple[type | str, str]]) -> None:
        self.kind, self._found = kind, dict(sorted(found.items()))

    def __getitem__(self, name: str) -> type:
        """The class called `name`.

        Raises:
            ConfigError: if there is none: it lists what is installed, the nearest match, and what to install.
            PluginError: if its module cannot be imported.
        """
        if name not in self._found:
            raise ConfigError(self.missing(name))
        found, source = self._found[name]
        if not isinstance(found, str):
            return found
        try:
            loaded = pkgutil.resolve_name(found)
        except Exception as error:
            raise PluginError(
                f"{self.kind[:-1]} {name!r} of {source} cannot be imported from {found}: "
                f"{type(error).__name__}: {error}; mend or uninstall {source}"
            ) from error
        if not isinstance(loaded, type):
            raise PluginError(
                f"{self.kind[:-1]} {name!r} of {source}: {found} is a {type(loaded).__name__}, not a class"
            )
        return loaded

    def missing(self, name: str) -> str:
        """The message for a name that is not installed."""
        one = self.kind[:-1]
        parts = [f"{one} {name!r} is not installed."]
        if home := HOMES.get((self.kind, name)):
            parts.append(f"It comes with: pip install {home}")
        elif guess := get_close_matches(name, {*self._found, *(n for k, n in HOMES if k == self.kind)}, n=1):
            parts.append(f"Did you mean {guess[0]!r}?")
        parts.append(f"Installed {self.kind}: {', '.join(self._found) or 'none'}.")
        return " ".join(parts)

    def source(self, name: str) -> str:
        """The dist and version that `name` came from."""
        return self._found[name][1]

    def __contains__(self, name: object) -> bool:
        return name in self._found

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


class Plugins:
    """The loaded plugins: `hook` to call them, `registry(kind)` to look classes up."""

    def __init__(self, manager: pluggy.PluginManager, sources: Mapping[str, str]) -> None:
        self.manager, self.hook, self.sources = manager, manager.hook, dict(sources)

    def registry(self, kind: str) -> Registry:
        """Everything of one kind that the plugins contribute.

        Raises:
            PluginError: if two of them contribute the same name.
        """
        found: dict[str, tuple[type | str, str]] = {}
        for implementation in getattr(self.hook, f"mt_{kind}").get_hookimpls():
            source = self.sources.get(implementation.plugin_name, implementation.plugin_name)
            for name, cls in implementation.function().items():
                if name in found:
                    raise PluginError(
                        f"{kind[:-1]} {name!r} comes from both {found[name][1]} and {source}; "
                        f"uninstall one, or leave one out with MT_BLOCK=NAME"
                    )
                found[name] = cls, source
        return Registry(kind, found)


def load(entry_points: bool = True) -> Plugins:
    """Load every installed plugin, except those named in the environment variable MT_BLOCK (separated by commas).

    A plugin that fails to load is left out with a warning that names it; the others work on.

    Raises:
        PluginError: if a plugin implements a hook that does not exist.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    sources: dict[str, str] = {}
    blocked = {name.strip() for name in os.environ.get("MT_BLOCK", "").split(",")}
    for dist in _unique(distributions()) if entry_points else ():
        for entry in dist.entry_points.select(group=hookspecs.PROJECT):
            if entry.name in blocked:
                continue
            source = f"{dist.metadata['Name']} {dist.version}"
            try:
                manager.register(entry.load(), entry.name)
            except Exception as error:  # noqa: BLE001 - whatever a stranger's import does, the others work on
                warnings.warn(
                    f"plugin {entry.name!r} of {source} is left out: {type(error).__name__}: {error}", stacklevel=2
                )
            else:
                sources[entry.name] = source
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(f"{error}; a plugin implements a hook that mt-core does not have (misspelt?)") from error
    return Plugins(manager, sources)


@cache
def plugins() -> Plugins:
    """The installed plugins, loaded once."""
    return load()


def registry(kind: str) -> Registry:
    """Everything of one kind (`adapters`, `backbones`, ...) that the installed plugins contribute."""
    return plugins().registry(kind)


def _unique(found: Iterable[Distribution]) -> Iterator[Distribution]:
    """Each dist once: an editable install may be listed twice on the path."""
    seen = set()
    for dist in found:
        if (name := dist.metadata["Name"]) not in seen:
            seen.add(name)
            yield dist
