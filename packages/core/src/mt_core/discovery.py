"""Finds the installed plugins and looks up what they contribute."""

from __future__ import annotations

import os
import pkgutil
import warnings
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, distributions
from typing import cast

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
        try:
            loaded = pkgutil.resolve_name(found) if isinstance(found, str) else found
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
        """Everything of one kind that the plugins contribute. One whose hook fails is left out with a warning.

        Raises:
            PluginError: if two of them contribute the same name.
        """
        found: dict[str, tuple[type | str, str]] = {}
        for implementation in getattr(self.hook, f"mt_{kind}").get_hookimpls():
            source = self.sources.get(implementation.plugin_name, implementation.plugin_name)
            for name, cls in self._ask(implementation, source).items():
                if name in found:
                    raise PluginError(
                        f"{kind[:-1]} {name!r} comes from both {found[name][1]} and {source}; "
                        f"uninstall one, or leave this one out with MT_BLOCK={implementation.plugin_name}"
                    )
                found[name] = cls, source
        return Registry(kind, found)

    def _ask(self, implementation: pluggy.HookImpl, source: str) -> dict[str, type | str]:
        """What one plugin contributes; whatever goes wrong in it, the others work on."""
        try:
            return dict(cast(Mapping[str, type | str], implementation.function()).items())
        except Exception as error:  # noqa: BLE001
            self.manager.unregister(name=implementation.plugin_name)
            _warn_left_out(implementation.plugin_name, source, error)
            return {}


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
    for entry, source in _installed() if entry_points else ():
        if entry.name in blocked:
            continue
        try:
            _register(manager, entry)
        except Exception as error:  # noqa: BLE001 - whatever a stranger's import does, the others work on
            _warn_left_out(entry.name, source, error)
        else:
            sources[entry.name] = source
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(
            f"{error}; a plugin implements a hook that mt-core does not have (misspelt?): "
            f"mend it, or leave it out with MT_BLOCK=NAME"
        ) from error
    return Plugins(manager, sources)


@cache
def plugins() -> Plugins:
    """The installed plugins, loaded once."""
    return load()


def registry(kind: str) -> Registry:
    """Everything of one kind (`adapters`, `backbones`, ...) that the installed plugins contribute."""
    return plugins().registry(kind)


def _installed() -> Iterator[tuple[EntryPoint, str]]:
    """Every plugin and the dist it is from. Each dist once: an editable install may be listed twice on the path."""
    seen = set()
    for dist in distributions():
        entries = dist.entry_points.select(group=hookspecs.PROJECT)
        if entries and (name := dist.metadata["Name"]) not in seen:
            seen.add(name)
            yield from ((entry, f"{name} {dist.version}") for entry in entries)


def _register(manager: pluggy.PluginManager, entry: EntryPoint) -> None:
    """Wholly or not at all: where one hook has the wrong arguments, pluggy has registered those before it already."""
    if manager.has_plugin(entry.name):
        raise ValueError(f"another plugin is called {entry.name!r} too; its author must rename its entry point")
    try:
        manager.register(entry.load(), entry.name)
    except Exception:
        if manager.has_plugin(entry.name):
            manager.unregister(name=entry.name)
        raise


def _warn_left_out(name: str, source: str, error: Exception) -> None:
    warnings.warn(f"plugin {name!r} of {source} is left out: {type(error).__name__}: {error}", stacklevel=3)
