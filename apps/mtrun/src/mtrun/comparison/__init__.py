"""Comparing runs that are done: `compare` from Python, `mtrun compare` from the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mt_core.errors import ConfigError
from mt_core.files import write_bytes, write_json

from . import text
from .tables import Comparison, compare_runs

__all__ = ["FILES", "Comparison", "compare", "compare_runs", "write"]

FILES = ("report.html", "comparison.md", "comparison.csv", "comparison.json")


def compare(
    folders: Sequence[str | Path],
    output: str | Path,
    *,
    papers: Sequence[str] = (),
    baseline: Sequence[str | Path] = (),
    weights: str = "best",
    pictures: int = 3,
    names: Mapping[str, str] | None = None,
    title: str = "Comparison",
    notes: Sequence[str] = (),
) -> Comparison:
    """Compare runs and write the report: `report.html`, and the same as Markdown, CSV and JSON.

    Args:
        folders: of runs that are done. Runs that differ only in seed become one row, and so do single-task runs of
            one configuration; what must not be compared goes into separate tables.
        output: the folder to write; files of an earlier comparison in it are replaced.
        papers: tables of papers to show beside them, as `mtlora:table1`.
        baseline: folders of the runs that gains are relative to, single-task ones together, or one table of a paper.
        weights: `best` (lowest weighted validation loss) or `final`: whose metrics are taken, and whose pictures.
        pictures: how many validation pictures every model predicts; 0 for none. Needs the data and the artefacts.
        names: for rows, by the folder of one of their runs, as it is in `folders`.
        title, notes: of the report; notes are paragraphs of plain text.

    Returns:
        what was compared: tables of rows with means, deviations and gains.

    Raises:
        CheckpointError: if a run is not done, or damaged.
        ConfigError: if a table or a baseline cannot be what is asked for, or the output cannot be written.
    """
    found = compare_runs([Path(folder) for folder in folders], papers, [str(x) for x in baseline], weights, names)
    write(found, Path(output), pictures, title, notes)
    return found


def write(comparison: Comparison, output: Path, pictures: int, title: str, notes: Sequence[str] = ()) -> None:
    """Write the report of a comparison. Raises ConfigError if the folder cannot be written."""
    from .gallery import Gallery, gallery  # these load torch
    from .report import html

    if pictures:
        galleries = [gallery(table, pictures, comparison.weights) for table in comparison.tables]
    else:
        galleries = [Gallery() for _ in comparison.tables]
    pages = {
        "report.html": html(comparison, galleries, title, notes),
        "comparison.md": text.markdown(comparison),
        "comparison.csv": text.comma_separated(comparison),
    }
    try:
        for name, page in pages.items():
            write_bytes(output / name, page.encode())
        write_json(output / "comparison.json", text.to_json(comparison))
    except OSError as error:
        raise ConfigError(f"output={output} cannot be written: {error.strerror}; choose another folder") from error
