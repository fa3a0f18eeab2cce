"""Unpacks archives that nobody vouches for: plain files only, inside one folder, and no more than there may be.

Nothing is left to the libraries' own extraction. Names are checked, links become copies of files that came before them,
devices are refused, and every byte that is written is counted, whatever the archive says of itself.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Self

from mt_core.errors import ConfigError, DataError

HARMLESS = 256 << 20  # bytes; archives that become no larger are no bombs, whatever their ratio
MOST_FILES = 5_000_000
CHUNK = 1 << 20
JUNK = ("__MACOSX", ".DS_Store", "Thumbs.db")  # left by file managers
NOTES = ("readme", "license", "licence")  # every archive of a collection may bring its own

_COMPRESSED: dict[bytes, Callable[[IO[bytes]], IO[bytes]]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),  # type: ignore[dict-item,return-value]
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}

Watch = Callable[[int], None]  # told how many bytes of the archive have been read


@dataclass
class Unpacking:
    """One archive on its way into a folder.

    Attributes:
        archive: the file.
        folder: where it goes.
        allowed: how many bytes may still be written.
        files: what has been written of it: path in the archive -> file.
    """

    archive: Path
    folder: Path
    allowed: int
    watch: Watch = lambda _: None
    files: dict[PurePosixPath, Path] = field(default_factory=dict)

    def put(self, name: str, size: int, stream: IO[bytes]) -> None:
        """Write one member. Raises DataError, or ConfigError if the folder cannot be written to."""
        path = self.inside(name)
        if _is_junk(path):
            return
        if size > self.allowed:
            raise self.too_large()
        if len(self.files) >= MOST_FILES:
            raise DataError(f"{self.archive}: more than {MOST_FILES} files; that is no data set")
        target = self.folder / path
        if os.path.lexists(target):
            self._expect_same(path, target, stream)
        else:
            self._copy(path, target, size, stream)
        self.files[path] = target

    def link(self, name: str, to: PurePosixPath) -> None:
        """A member that is a link becomes a copy of the file it points to, which came before it."""
        source = self.files.get(self.inside(str(to)) if ".." not in to.parts else _resolved(to))
        if source is None:
            raise DataError(
                f"{self.archive}: {name!r} is a link to {str(to)!r}, which is no file before it in the archive; "
                f"links are not followed anywhere else: pack it again with the files themselves"
            )
        with source.open("rb") as stream:
            self.put(name, source.stat().st_size, stream)

    def inside(self, name: str) -> PurePosixPath:
        """The path of a member in the folder. Raises DataError if it would be anywhere else."""
        path = PurePosixPath(name)
        odd = (
            "\\" in name
            or ":" in name
            or not name.isprintable()
            or any(len(part.encode()) > 255 for part in path.parts)
        )
        if not path.parts or path.is_absolute() or ".." in path.parts or odd:
            raise DataError(
                f"{self.archive}: it holds {name!r}, which is no path inside of a folder; an archive of pictures has "
                f"no such thing: do not use it, and get it again from its source"
            )
        return path

    def too_large(self) -> DataError:
        """What to say when it becomes larger than it may."""
        return DataError(
            f"{self.archive}: unpacked, it is larger than max_ratio or the free space of the disk allows (a "
            f"decompression bomb?); make room, or raise max_ratio if you trust it"
        )

    def _copy(self, path: PurePosixPath, target: Path, size: int, stream: IO[bytes]) -> None:
        with _writing(self.folder):
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                file = target.open("xb")
            except (FileExistsError, NotADirectoryError) as error:
                raise DataError(
                    f"{self.archive}: {str(path)!r} is a file and a folder at once; do not use it"
                ) from error
        with file:
            before = self.allowed
            while chunk := stream.read(CHUNK):
                self.allowed -= len(chunk)
                if self.allowed < 0:
                    raise self.too_large()
                with _writing(self.folder):
                    file.write(chunk)
            if before - self.allowed != size:
                raise OSError(f"{path} has {before - self.allowed} of {size} bytes")

    def _expect_same(self, path: PurePosixPath, target: Path, stream: IO[bytes]) -> None:
        """Several archives of a collection may bring the same file, and each its own notes; nothing else twice."""
        if target.is_dir():
            raise DataError(f"{self.archive}: {str(path)!r} is a file and a folder at once; do not use it")
        same = True
        with target.open("rb") as known:
            while chunk := stream.read(CHUNK):
                same = same and known.read(len(chunk)) == chunk
            same = same and not known.read(1)
        if not same and not (len(path.parts) == 1 and path.stem.lower() in NOTES):
            raise DataError(
                f"{self.archive}: {str(path)!r} is there already, with other contents; archives of one data set must "
                f"not contradict each other: leave one of them away"
            )


def unpack(archive: Path, folder: Path, max_ratio: float, watch: Watch = lambda _: None) -> int:
    """Unpack a tar (plain, gz, bz2, xz) or zip archive into a folder, or copy a .mat file there; how many files.

    Args:
        max_ratio: it must not become so many times larger, unless it stays below `HARMLESS`.
        watch: told how many bytes of it have been read.

    Raises:
        DataError: if it is missing, damaged, encrypted or no archive, or holds what no archive of pictures does.
        ConfigError: if the folder cannot be written to.
    """
    try:
        size = archive.stat().st_size
    except OSError as error:
        raise DataError(f"{archive}: no such archive ({error.strerror}); give files that you have") from error
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    allowed = min(int(max(HARMLESS, max_ratio * size)), free)
    unpacking = Unpacking(archive, folder, allowed, watch)
    with _reading(archive), archive.open("rb") as file:
        head = file.read(4)
        file.seek(0)
        if archive.suffix == ".mat":
            unpacking.put(archive.name, size, file)
        elif head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            _unpack_zip(file, unpacking)
        else:
            _unpack_tar(file, unpacking)
    return len(unpacking.files)


class _Member(tarfile.TarInfo):
    """A header; where tarfile takes a damaged one in the middle for the end, this says so."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile_)
        except (tarfile.EmptyHeaderError, tarfile.TruncatedHeaderError, tarfile.InvalidHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(f"{error} at byte {tarfile_.offset}") from error


def _unpack_tar(file: IO[bytes], unpacking: Unpacking) -> None:
    head = file.read(6)
    file.seek(0)
    inner = next((opened(file) for magic, opened in _COMPRESSED.items() if head.startswith(magic)), file)
    with tarfile.open(fileobj=inner, mode="r|", tarinfo=_Member) as tar:  # in one pass, as it comes
        for member in tar:
            unpacking.watch(file.tell())
            if member.isdir():
                if PurePosixPath(member.name).parts:  # "." is the archive itself
                    unpacking.inside(member.name)
            elif member.islnk():
                unpacking.link(member.name, PurePosixPath(member.linkname))
            elif member.issym():
                unpacking.link(member.name, PurePosixPath(member.name).parent / member.linkname)
            elif (stream := tar.extractfile(member)) is not None:
                unpacking.put(member.name, member.size, stream)
            else:
                raise DataError(f"{unpacking.archive}: {member.name!r} is a device or a pipe, no file; do not use it")
    rest = 0
    while chunk := inner.read(CHUNK):  # up to the check sum at its end
        if (rest := rest + len(chunk)) > HARMLESS:
            raise unpacking.too_large()


def _unpack_zip(file: IO[bytes], unpacking: Unpacking) -> None:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > unpacking.allowed:
            raise unpacking.too_large()
        done = 0
        for member in members:
            if member.flag_bits & 1:
                raise DataError(f"{unpacking.archive}: {member.filename!r} is encrypted; unpack it yourself")
            if stat.S_ISLNK(member.external_attr >> 16):
                raise DataError(f"{unpacking.archive}: {member.filename!r} is a link, no file; do not use it")
            if member.is_dir():
                unpacking.inside(member.filename)
            else:
                with archive.open(member) as stream:
                    unpacking.put(member.filename, member.file_size, stream)
            done += member.compress_size
            unpacking.watch(done)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Tells a disk that cannot be written to from an archive that cannot be read."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EIO):
            raise
        raise ConfigError(
            f"{folder.parent} cannot be written to ({error.strerror}); make room, or set another dataset.root"
        ) from error


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """Turns whatever a damaged archive makes the libraries raise into a DataError."""
    try:
        yield
    except (DataError, ConfigError):
        raise
    except Exception as error:  # they fail in as many ways as a file can be damaged
        raise DataError(
            f"{archive}: cannot be read as a tar or zip archive ({type(error).__name__}: {error}); it is damaged or "
            f"something else: get it again"
        ) from error


def _resolved(path: PurePosixPath) -> PurePosixPath:
    """Without `..`, as far as it stays inside; a path that no file has where it does not."""
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and parts:
            parts.pop()
        else:
            parts.append(part)
    return PurePosixPath(*parts)


def _is_junk(path: PurePosixPath) -> bool:
    return any(part in JUNK or part.startswith("._") for part in path.parts)
