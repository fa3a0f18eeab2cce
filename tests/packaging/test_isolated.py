"""The environments of `scripts/isolated.py` hold what is declared, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from email.message import Message
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


class Declared(Distribution):
    """A dist of which only the name, the version and the requirements are known."""

    def __init__(self, name: str, *requires: str, version: str = "1.0") -> None:
        self._metadata = Message()
        for key, value in [("Name", name), ("Version", version), *(("Requires-Dist", text) for text in requires)]:
            self._metadata[key] = value

    @property
    def metadata(self) -> Any:
        return self._metadata

    def read_text(self, filename: str) -> str | None:
        return self._metadata.as_string() if filename == "METADATA" else None

    def locate_file(self, path: Any) -> Path:
        return Path(path)


@pytest.fixture
def closure(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str], Mapping[str, Distribution]], list[str]]:
    monkeypatch.syspath_prepend(SCRIPTS)
    from isolated import closure

    return closure


AVAILABLE = {
    "app": Declared("app", "library>=1", 'tools; extra == "dev"', 'other; python_version < "3"'),
    "library": Declared("library", "base"),
    "base": Declared("base"),
    "tools": Declared("tools", "base"),
    "other": Declared("other"),
}


def test_what_is_declared_comes_with_what_it_declares(closure: Callable[..., list[str]]) -> None:
    assert closure(["app"], AVAILABLE) == ["app", "base", "library"]


def test_extras_come_when_they_are_asked_for(closure: Callable[..., list[str]]) -> None:
    assert closure(["app", "App[dev]"], AVAILABLE) == ["app", "base", "library", "tools"]


def test_what_is_nowhere_is_refused(closure: Callable[..., list[str]]) -> None:
    with pytest.raises(LookupError, match="library needs base, found nothing; install it here, or add its wheel"):
        closure(["library"], {"library": AVAILABLE["library"]})


def test_another_version_is_refused(closure: Callable[..., list[str]]) -> None:
    old = {**AVAILABLE, "library": Declared("library", version="0.9")}
    with pytest.raises(LookupError, match=r"app needs library>=1, found version 0\.9"):
        closure(["app"], old)
