"""A virtual environment that holds exactly what dists declare, so that an undeclared import fails in it.

    python scripts/isolated.py DIR --wheels dist mtrun mt-backbones-swin "mt-core[testing]"

Our own dists are unpacked from their wheels; everything else is linked from the environment that runs this, so no
network is needed and a gigabyte of torch is not copied.
"""

from __future__ import annotations

import argparse
import sys
import venv
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path, PurePath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def create(folder: Path, install: Sequence[str], wheels: Iterable[Path]) -> Path:
    """Make the environment and return its python.

    Args:
        folder: where; a new folder.
        install: requirements, for example `mtrun` or `mt-core[testing]`. What they declare comes with them.
        wheels: where dists of our own are taken from, as far as they are needed.

    Raises:
        LookupError: if something declared is in no wheel and not installed here, or in a version that does not do.
    """
    ours = {_name(dist): (dist, wheel) for wheel in wheels for dist in distributions(path=[str(wheel)])}
    here = {_name(dist): dist for dist in distributions() if not _editable(dist)}
    needed = closure(install, here | {name: dist for name, (dist, _) in ours.items()})
    venv.create(folder, symlinks=True)
    packages = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    foreign = {
        parent for name, dist in here.items() if name not in needed for file in _files(dist) for parent in file.parents
    }
    for name in needed:
        if name in ours:
            dist, wheel = ours[name]
            zipfile.ZipFile(wheel).extractall(packages)
            _write_commands(dist, folder / "bin")
        else:
            _link(here[name], packages, foreign)
    return folder / "bin" / "python"


def closure(install: Iterable[str], available: Mapping[str, Distribution]) -> list[str]:
    """The names of all dists that the requirements in `install` need, by what each declares.

    Raises:
        LookupError: if one is not available, or not in a version that does.
    """
    needed: dict[str, set[str]] = {}
    todo = [(Requirement(text), "the command line") for text in install]
    while todo:
        requirement, by = todo.pop()
        name = canonicalize_name(requirement.name)
        dist = available.get(name)
        if dist is None or not requirement.specifier.contains(dist.version, prereleases=True):
            found = f"version {dist.version}" if dist else "nothing"
            raise LookupError(f"{by} needs {requirement}, found {found}; install it here, or add its wheel")
        if name in needed and requirement.extras <= needed[name]:
            continue
        extras = needed.setdefault(name, set())
        extras |= requirement.extras
        declared = [Requirement(text) for text in dist.requires or ()]
        todo += [(r, name) for r in declared if _applies(r, {"", *extras})]
    return sorted(needed)


def _applies(requirement: Requirement, extras: set[str]) -> bool:
    return requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras)


def _name(dist: Distribution) -> str:
    return canonicalize_name(dist.metadata["Name"])


def _editable(dist: Distribution) -> bool:
    return '"editable": true' in (dist.read_text("direct_url.json") or "")


def _files(dist: Distribution) -> Iterator[PurePath]:
    """The files of an installed dist, relative to its site-packages; commands and caches left out."""
    for file in dist.files or ():
        if ".." not in file.parts and file.parts[0] != "__pycache__":
            yield PurePath(file)


def _link(dist: Distribution, packages: Path, foreign: set[PurePath]) -> None:
    """Link a dist's files into `packages`, by whole folders where no dist that stays outside has a file."""
    for file in _files(dist):
        top = next((folder for folder in reversed(file.parents[:-1]) if folder not in foreign), file)
        link = packages / top
        if not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(Path(str(dist.locate_file(str(top)))))


def _write_commands(dist: Distribution, folder: Path) -> None:
    for entry in dist.entry_points.select(group="console_scripts"):
        script = folder / entry.name
        script.write_text(
            f"#!{folder / 'python'}\nimport sys\nfrom {entry.module} import {entry.attr}\nsys.exit({entry.attr}())\n"
        )
        script.chmod(0o755)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("install", nargs="+", help="requirements, such as mtrun or mt-core[testing]")
    parser.add_argument("--wheels", type=Path, default=Path("dist"), help="folder of our own wheels")
    given = parser.parse_args()
    print(create(given.folder, given.install, sorted(given.wheels.glob("*.whl"))))


if __name__ == "__main__":
    main()
