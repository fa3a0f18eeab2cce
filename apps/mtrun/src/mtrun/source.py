"""Where Hydra finds mtrun's configs: dataclasses of the verbs, and the options of whatever plugin is chosen.

A Hydra config source instead of a filled ConfigStore: a plugin's module is imported only if its name is chosen, by an
override, an experiment or a sweep, so that a run does not pay for what it does not use.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from mt_core.discovery import Registry, registry
from mt_core.errors import ConfigError, PluginError

from .config import Config
from .own import OWN
from .untrusted import CheckedFiles

AUTO = "auto"  # the decoder that suits the backbone
DECIDED_LATER = ("decoder", AUTO)

# Nothing of Hydra's own on disk or in the logs: mtrun owns the run's folder.
HYDRA: dict[str, Any] = {"run": {"dir": "."}, "sweep": {"subdir": "."}, "output_subdir": None}
SILENT = [{"override hydra/job_logging": "none"}, {"override hydra/hydra_logging": "none"}]


@dataclass(frozen=True)
class Root:
    """What is composed: the config class of a verb, and the values of a run that stand in for its defaults."""

    name: str
    config: type[Config]
    saved: Mapping[str, Any] = field(default_factory=dict)

    def choices(self) -> dict[str, str | None]:
        """The default of each config group."""
        groups = self.config.groups
        plugins = {group: self.saved.get(group, {}).get("name", usual) for group, usual in groups.items()}
        return {**plugins, **dict.fromkeys(self.config.files)}


_root: ContextVar[Root] = ContextVar("root")


@contextmanager
def composing(root: Root) -> Iterator[None]:
    """Let Hydra find the configs of `root`."""
    for plugin in (PluginSource, PluginSearchPath):
        Plugins.instance().register(plugin)
    token, sources = _root.set(root), SourcesRegistry.instance().types
    usual, sources["file"] = sources["file"], CheckedFiles
    try:
        yield
    finally:
        sources["file"] = usual
        _root.reset(token)


def installed(group: str) -> Registry:
    """What can be chosen in a config group, by name; looking at the names imports nothing."""
    if group in OWN:
        return OWN[group]
    return registry(f"{group}s")


def is_choice(group: str, name: str) -> bool:
    """Whether a group can be set to this name."""
    return name in installed(group) or (group, name) == DECIDED_LATER


class PluginSource(ConfigSource):
    """mtrun://, with the verb's config at its root and one folder per group."""

    @staticmethod
    def scheme() -> str:
        return "mtrun"

    def available(self) -> bool:
        return True

    def load_config(self, config_path: str) -> ConfigResult:
        group, _, name = _plain(config_path).rpartition("/")
        node = options_node(_root.get(), group, name) if group else root_node(_root.get())
        return ConfigResult(self.provider, f"mtrun://{config_path}", node, header={"package": None})

    def is_group(self, config_path: str) -> bool:
        return _plain(config_path) in ("", *_root.get().config.groups)

    def is_config(self, config_path: str) -> bool:
        group, _, name = _plain(config_path).rpartition("/")
        if not group:
            return name == _root.get().name
        return group in _root.get().config.groups and is_choice(group, name)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        path = _plain(config_path)
        if path == "":
            return [] if results_filter == ObjectType.CONFIG else sorted(_root.get().config.groups)
        return [] if results_filter == ObjectType.GROUP else sorted(installed(path))


class PluginSearchPath(SearchPathPlugin):
    """Puts `PluginSource` on Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if _root.get(None) is not None:
            search_path.append("mtrun", "mtrun://")


def root_node(root: Root) -> DictConfig:
    """The primary config: the verb's dataclass, with the saved values in place of its defaults."""
    node: DictConfig = OmegaConf.structured(root.config)
    _fill(node, {key: value for key, value in root.saved.items() if key in node and key not in root.config.groups})
    with open_dict(node):
        node["hydra"] = HYDRA
        node["defaults"] = ["_self_", *({group: name} for group, name in root.choices().items()), *SILENT]
    _open(node)
    return node


def options_node(root: Root, group: str, name: str) -> DictConfig:
    """The options of one plugin as a config, with its name.

    Raises:
        PluginError: if the plugin's class cannot be a config.
    """
    if (group, name) == DECIDED_LATER:
        return OmegaConf.create({"name": AUTO})
    cls = installed(group)[name]
    try:
        node: DictConfig = OmegaConf.structured(cls)
    except OmegaConfBaseException as error:
        raise PluginError(
            f"{group} {name!r} cannot be configured: {str(error).splitlines()[0]}; its class must be a dataclass whose "
            f"fields have types that OmegaConf knows (no Literal, no Sequence, no union of containers)"
        ) from error
    if "name" in node:
        raise PluginError(f"{group} {name!r}: an option must not be called `name`; that is the plugin's own")
    with open_dict(node):
        for option in dataclasses.fields(cls):
            if not option.init:
                del node[option.name]  # state of the object, which nobody sets
        node["name"] = name
    saved = root.saved.get(group, {})
    if saved.get("name") == name:
        _fill(node, saved)
    _open(node)
    return node


def _fill(node: DictConfig, values: Mapping[str, Any]) -> None:
    """Put saved values into a config; what a nested options class does not have is left out."""
    for key, value in values.items():
        inner = node.get(key) if key in node else None
        if isinstance(inner, DictConfig) and isinstance(value, dict) and OmegaConf.get_type(inner) is not dict:
            _fill(inner, {name: item for name, item in value.items() if name in inner})
            continue
        try:
            node[key] = value
        except OmegaConfBaseException as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"the run's saved configuration: {key}={value!r} does not fit: {reason}") from error


def _open(node: DictConfig) -> None:
    """Let dictionaries among the options take any key."""
    for key in node:
        if not OmegaConf.is_missing(node, key) and isinstance(value := node[key], DictConfig):
            if OmegaConf.get_type(value) is dict:
                OmegaConf.set_struct(value, False)
            else:
                _open(value)


def _plain(config_path: str) -> str:
    return config_path.removesuffix(".yaml").strip("/")
