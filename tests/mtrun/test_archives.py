"""Archives are unpacked whole and harmlessly, or not at all."""

from __future__ import annotations

import errno
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mt_core.errors import ConfigError, DataError
from mtrun import archives
from mtrun.archives import unpack

FILES = {"a/one.txt": b"1" * 3000, "a/b/two.npy": bytes(range(256)) * 20, "three.png": b""}


def tar_of(path: Path, files: dict[str, bytes], mode: str = "w:gz", *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, mode) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for member in members:
            tar.addfile(member)
    return path


def zip_of(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def special(name: str, kind: bytes, to: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
def test_every_kind_is_unpacked_whole(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "archive"
    archive = zip_of(path, FILES) if kind == "zip" else tar_of(path, FILES, kind)
    seen: list[int] = []
    assert unpack(archive, tmp_path / "out", 200, seen.append) == 3
    assert contents(tmp_path / "out") == FILES
    assert seen == sorted(seen)


def test_a_mat_file_is_copied(tmp_path: Path) -> None:
    (tmp_path / "x.mat").write_bytes(b"PK\x03\x04 any bytes")
    (tmp_path / "out").mkdir()
    unpack(tmp_path / "x.mat", tmp_path / "out", 200)
    assert contents(tmp_path / "out") == {"x.mat": b"PK\x03\x04 any bytes"}


def test_what_file_managers_leave_behind_is_left_out(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "a.zip", {**FILES, "__MACOSX/a": b"x", "a/.DS_Store": b"x", "a/._one.txt": b"x"})
    unpack(archive, tmp_path / "out", 200)
    assert contents(tmp_path / "out") == FILES


def test_links_to_files_before_them_become_copies(tmp_path: Path) -> None:
    links = special("a/b/hard", tarfile.LNKTYPE, "a/one.txt"), special("a/b/soft", tarfile.SYMTYPE, "../one.txt")
    unpack(tar_of(tmp_path / "a.tgz", FILES, "w:gz", *links), tmp_path / "out", 200)
    assert {"a/b/hard": FILES["a/one.txt"], "a/b/soft": FILES["a/one.txt"]}.items() <= contents(
        tmp_path / "out"
    ).items()
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../out", "a/../../out", "a\\..\\b", "C:/x", "a/\x1b[2J", "a/" + 300 * "x", "a/b\n"]
)
@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_names_that_lead_outside_are_refused(
    tmp_path: Path, name: str, pack: Callable[[Path, dict[str, bytes]], Path]
) -> None:
    archive = pack(tmp_path / "archive", {name: b"x"})
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="which is no path inside of a folder") as caught:
        unpack(archive, tmp_path / "out", 200)
    assert str(archive) in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "out"]


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (special("l", tarfile.SYMTYPE, "/etc/passwd"), "which is no path inside of a folder"),
        (special("l", tarfile.SYMTYPE, "../../etc"), "is a link to '../../etc', which is no file before it"),
        (special("l", tarfile.SYMTYPE, "l"), "is a link to 'l', which is no file before it"),
        (special("a/l", tarfile.SYMTYPE, "."), "which is no file before it"),
        (special("l", tarfile.LNKTYPE, "nothing"), "is a link to 'nothing', which is no file"),
        (special("p", tarfile.FIFOTYPE), "'p' is a device or a pipe"),
        (special("d", tarfile.CHRTYPE), "'d' is a device or a pipe"),
        (special("../d", tarfile.DIRTYPE), "which is no path inside of a folder"),
    ],
)
def test_what_no_archive_of_pictures_holds_is_refused(tmp_path: Path, member: tarfile.TarInfo, message: str) -> None:
    with pytest.raises(DataError, match=message):
        unpack(tar_of(tmp_path / "a.tar", FILES, "w", member), tmp_path / "out", 200)


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("l")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="'l' is a link, no file"):
        unpack(tmp_path / "a.zip", tmp_path, 200)


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    data = bytearray(zip_of(tmp_path / "a.zip", {"x": b"1"}).read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(DataError, match="'x' is encrypted; unpack it"):
        unpack(tmp_path / "a.zip", tmp_path, 200)


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_a_bomb_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable[[Path, dict[str, bytes]], Path]
) -> None:
    monkeypatch.setattr(archives, "HARMLESS", 1 << 16)
    bomb = pack(tmp_path / "bomb", {"zeros": bytes(8 << 20)})
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="a decompression bomb"):
        unpack(bomb, tmp_path / "out", 200)
    assert sum(map(len, contents(tmp_path / "out").values())) < 1 << 23
    assert unpack(bomb, tmp_path / "out", 5000) == 1


def test_a_zip_that_lies_about_its_size_is_stopped(tmp_path: Path) -> None:
    data = zip_of(tmp_path / "a.zip", {"zeros": bytes(1 << 20)}).read_bytes()
    (tmp_path / "a.zip").write_bytes(data.replace((1 << 20).to_bytes(4, "little"), (5).to_bytes(4, "little")))
    with pytest.raises(DataError, match=r"a\.zip: cannot be read as a tar or zip archive"):
        unpack(tmp_path / "a.zip", tmp_path / "out", 200)


def test_what_follows_a_tar_is_no_bomb_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip

    monkeypatch.setattr(archives, "HARMLESS", 1 << 21)
    plain = tar_of(tmp_path / "a.tar", FILES, "w").read_bytes()
    (tmp_path / "a.tgz").write_bytes(gzip.compress(plain + bytes(8 << 20)))
    with pytest.raises(DataError, match="a decompression bomb"):
        unpack(tmp_path / "a.tgz", tmp_path / "out", 200)


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_FILES", 2)
    with pytest.raises(DataError, match="more than 2 files; that is no data set"):
        unpack(tar_of(tmp_path / "a.tar", FILES, "w"), tmp_path / "out", 200)


@pytest.mark.parametrize("kind", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
def test_an_archive_cut_off_anywhere_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "archive"
    data = (zip_of(path, FILES) if kind == "zip" else tar_of(path, FILES, kind)).read_bytes()
    end = len(data.rstrip(b"\0")) if kind == "w" else len(data)  # a plain tar ends with zeros
    for size in range(1, end, max(1, end // 40)):
        path.write_bytes(data[:size])
        with pytest.raises(DataError, match="cannot be read as a tar or zip archive"):
            unpack(path, tmp_path / f"out{size}", 200)


def test_a_tar_that_ends_between_its_files_is_noticed(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", FILES, "w")
    whole = path.read_bytes()
    second = whole.index(b"a/b/two.npy")
    for size, reason in ((second, "empty header"), (second + 100, "truncated header")):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=rf"{reason} at byte {second}"):
            unpack(path, tmp_path / f"out{size}", 200)


def test_a_damaged_check_sum_is_noticed(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tgz", FILES)
    data = bytearray(path.read_bytes())
    data[-6] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="CRC check failed"):
        unpack(path, tmp_path / "out", 200)


@pytest.mark.parametrize("data", [b"", b"<html>", b"\x1f\x8b\x08 broken"])
def test_what_is_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.tgz").write_bytes(data)
    with pytest.raises(DataError, match="it is damaged or something else"):
        unpack(tmp_path / "a.tgz", tmp_path, 200)
    with pytest.raises(DataError, match="no such archive"):
        unpack(tmp_path / "b.tgz", tmp_path, 200)


def test_archives_of_a_collection_may_share_files_and_bring_their_own_notes(tmp_path: Path) -> None:
    unpack(zip_of(tmp_path / "a.zip", {**FILES, "README": b"one", "license.txt": b"one"}), tmp_path / "out", 200)
    unpack(
        zip_of(tmp_path / "b.zip", {"a/one.txt": FILES["a/one.txt"], "README": b"two", "x": b""}), tmp_path / "out", 200
    )
    assert contents(tmp_path / "out") == {**FILES, "README": b"one", "license.txt": b"one", "x": b""}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a/one.txt": b"2"}, "is there already, with other contents"),
        ({"a/one.txt": FILES["a/one.txt"] + b"1"}, "is there already, with other contents"),
        ({"a/README": b"2"}, "is there already, with other contents"),
        ({"a": b"2"}, "'a' is a file and a folder at once"),
        ({"a/one.txt/x": b"2"}, "'a/one.txt/x' is a file and a folder at once"),
    ],
)
def test_archives_that_contradict_each_other_are_refused(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    unpack(tar_of(tmp_path / "a.tar", {**FILES, "a/README": b"1"}), tmp_path / "out", 200)
    with pytest.raises(DataError, match=message):
        unpack(tar_of(tmp_path / "b.tar", files), tmp_path / "out", 200)


def test_a_full_disk_is_no_fault_of_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    archive = tar_of(tmp_path / "a.tar", FILES)
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(ConfigError, match=r"cannot be written to \(No space left on device\); make room"):
        unpack(archive, tmp_path / "out", 200)
