"""A damaged artefact is refused, naming the file."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mt_core import artefact
from mt_core.artefact import CONFIG, MANIFEST, WEIGHTS, load_artefact, read_spec, save
from mt_core.build import Built
from mt_core.errors import CheckpointError, ConfigError
from mt_core.files import sha256
from mt_core.testing.miniatures import randomise


def rewrite(folder: Path, name: str, change: Callable[[Any], Any]) -> None:
    """Change a file of JSON, and its sum in the manifest."""
    path, manifest = folder / name, folder / MANIFEST
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    if name != MANIFEST:
        values = json.loads(manifest.read_text())
        values["files"][name] = {"sha256": sha256(path), "bytes": path.stat().st_size}
        manifest.write_text(json.dumps(values))


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_damaged_byte_anywhere_is_refused_naming_the_file(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    for i in range(0, len(data), max(1, len(data) // 100)):
        (folder / name).write_bytes(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :])
        with pytest.raises(CheckpointError, match=f"{name} is damaged: it differs from the sum in {MANIFEST}"):
            read_spec(folder)


def test_a_damaged_byte_anywhere_in_the_manifest_is_refused(folder: Path) -> None:
    data = (folder / MANIFEST).read_bytes()
    only_when_loaded = []
    for i in range(len(data)):
        (folder / MANIFEST).write_bytes(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :])
        try:
            read_spec(folder)
        except CheckpointError:
            continue
        only_when_loaded.append(i)
        with pytest.raises(CheckpointError, match="trained on another base"):
            load_artefact(folder)
    assert len(only_when_loaded) == 64, "the digits of the base's hash, which needs the base"


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused_naming_it(folder: Path, name: str, kept: float) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(kept * len(data))])
    with pytest.raises(CheckpointError, match=f"{name} is damaged"):
        load_artefact(folder)


@pytest.mark.parametrize("kept", [0, 1, 50, -3])
def test_a_truncated_manifest_is_refused_naming_it(folder: Path, kept: int) -> None:
    data = (folder / MANIFEST).read_bytes()
    (folder / MANIFEST).write_bytes(data[:kept])
    with pytest.raises(CheckpointError, match=f"{MANIFEST} cannot be read"):
        load_artefact(folder)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing; the artefact is incomplete"):
        read_spec(folder)


def test_a_file_too_many_is_named(folder: Path) -> None:
    (folder / "code.py").write_text("import os")
    with pytest.raises(CheckpointError, match=r"code.py does not belong to the artefact; remove it"):
        read_spec(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere: no such folder; expected an artefact with"):
        read_spec(tmp_path / "nowhere")


MANIFESTS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a newer format": (lambda m: {**m, "format": 2}, "not a manifest of format 1; was it written by a newer version"),
    "other files": (lambda m: {**m, "files": {CONFIG: m["files"][CONFIG]}}, "not a manifest of format 1"),
    "files in a list": (lambda m: {**m, "files": [CONFIG, WEIGHTS]}, "not a manifest of format 1"),
    "no sums": (lambda m: {**m, "files": {CONFIG: "abc", WEIGHTS: {}}}, "is damaged: it differs from the sum"),
    "a field more": (lambda m: {**m, "more": 1}, "expected an object with format, base_sha256, files"),
    "a list": (lambda m: [m], "expected an object with format, base_sha256, files"),
}


@pytest.mark.parametrize(("change", "message"), MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest_that_is_none_is_refused(folder: Path, change: Callable[[Any], Any], message: str) -> None:
    rewrite(folder, MANIFEST, change)
    with pytest.raises(CheckpointError, match=message):
        read_spec(folder)


def test_a_manifest_of_megabytes_is_not_even_read(folder: Path) -> None:
    (folder / MANIFEST).write_bytes(b" " * (artefact.LARGEST_JSON + 1))
    with pytest.raises(CheckpointError, match=f"{MANIFEST} is 4194305 bytes; a description has a few kilobytes"):
        read_spec(folder)


def test_brackets_without_end_do_no_harm(folder: Path) -> None:
    (folder / MANIFEST).write_bytes(b"[" * 1_000_000)
    with pytest.raises(CheckpointError, match=f"{MANIFEST} cannot be read"):
        read_spec(folder)


DESCRIPTIONS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "no object": (lambda c: {**c, "model": "mtlora"}, "model description: expected an object, found str"),
    "no adapter": (lambda c: {**c, "model": {**c["model"], "adapter": 3}}, "adapter is missing; expected its name"),
    "no model": (lambda c: {"format": 1}, "expected an object with format, model"),
}


@pytest.mark.parametrize(("change", "message"), DESCRIPTIONS.values(), ids=DESCRIPTIONS)
def test_a_description_that_is_none_is_refused_naming_its_file(
    folder: Path, change: Callable[[Any], Any], message: str
) -> None:
    rewrite(folder, CONFIG, change)
    with pytest.raises(CheckpointError, match=f"{CONFIG}.*{message}"):
        load_artefact(folder)


def test_weights_that_are_no_weights_are_refused_even_with_the_right_sum(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"not safetensors")
    values = json.loads((folder / MANIFEST).read_text())
    values["files"][WEIGHTS] = {"sha256": sha256(folder / WEIGHTS), "bytes": 15}
    (folder / MANIFEST).write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=f"{WEIGHTS} cannot be read"):
        load_artefact(folder)


def test_a_plugin_that_is_not_installed_is_named(folder: Path) -> None:
    rewrite(folder, CONFIG, lambda c: {**c, "model": {**c["model"], "adapter": {"name": "mtlora", "options": {}}}})
    with pytest.raises(ConfigError, match=r"adapter 'mtlora' is not installed. It comes with: pip install"):
        load_artefact(folder)


FILES = (CONFIG, WEIGHTS, MANIFEST)


def flip(folder: Path, other: Path, name: str, draw: random.Random) -> str:
    """One bit, anywhere in a file."""
    data = bytearray((folder / name).read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    (folder / name).write_bytes(data)
    return name


def truncate(folder: Path, other: Path, name: str, draw: random.Random) -> str:
    """The end of a file is gone; of a manifest more than its last line break."""
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: draw.randrange(len(data) - 1)])
    return name


def swap(folder: Path, other: Path, name: str, draw: random.Random) -> str:
    """A file of another artefact, or another file of this one."""
    source = other / name if draw.random() < 0.5 else folder / draw.choice([file for file in FILES if file != name])
    shutil.copy(source, folder / name)
    return "" if name == MANIFEST else name  # another's manifest makes the other files the wrong ones


def add(folder: Path, other: Path, name: str, draw: random.Random) -> str:
    """A file, a folder or a link too many."""
    extra = f"{draw.choice('abc')}{draw.randrange(100)}.{draw.choice(['py', 'bin', 'safetensors', 'json'])}"
    kinds: list[Callable[[Path], Any]] = [Path.touch, Path.mkdir, lambda path: path.symlink_to(folder / name)]
    draw.choice(kinds)(folder / extra)
    return extra


def remove(folder: Path, other: Path, name: str, draw: random.Random) -> str:
    (folder / name).unlink()
    return name


KINDS_OF_DAMAGE = (flip, truncate, swap, add, remove)


def test_two_hundred_random_corruptions_are_refused_with_exit_4_naming_the_file(built: Built, tmp_path: Path) -> None:
    whole, other, folder = tmp_path / "whole", tmp_path / "other", tmp_path / "artefact"
    save(whole, built)
    randomise([p for p in built.model.parameters() if p.requires_grad], 0.1)
    save(other, replace(built, spec=replace(built.spec, seed=6)))
    for number in range(200):
        draw = random.Random(number)
        shutil.copytree(whole, folder)
        damage = KINDS_OF_DAMAGE[number % len(KINDS_OF_DAMAGE)]
        named = damage(folder, other, draw.choice(FILES), draw)
        with pytest.raises(CheckpointError) as caught:
            load_artefact(folder)
        assert caught.value.exit_code == 4
        what = f"{number} {damage.__name__}: {caught.value}"
        assert named in str(caught.value) or "trained on another base" in str(caught.value), what
        assert str(folder) in str(caught.value), what
        shutil.rmtree(folder)
