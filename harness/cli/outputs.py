"""Files that a command writes: all of them or none, and none in the place of what was measured."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

from harness.cli.app import note


def check_files(paths: Sequence[Path], folders: Sequence[Path], inputs: Sequence[Path] = ()) -> None:
    """Raise ValueError unless all of these files can be written; missing folders will be made.

    `folders` are those of the records, and any other folder with records is like one: no file of their run folders is
    replaced, and none is added that looks like a record; tables, figures and pages beside the records are. `inputs` are
    files that the command reads, which it does not replace.
    """
    places = [path.parent.resolve() / path.name for path in paths]
    for path, place in zip(paths, places, strict=True):
        if place.exists() and any(each.exists() and each.samefile(place) for each in inputs):
            raise ValueError(f"cannot write {path}: it is what is read")
        if problem := _problem(place, [*folders, *_with_records(place)]):
            raise ValueError(f"cannot write {path}: {problem}")
    for one, other in itertools.combinations(range(len(paths)), 2):
        if places[one] == places[other]:
            raise ValueError(f"cannot write {paths[one]} and {paths[other]}: they are one file")


def _problem(place: Path, folders: Sequence[Path]) -> str | None:
    """Return why no file can be written here, None if one can."""
    if place.is_dir():
        return "it is a folder"
    if place.suffix == ".json" and place.exists() and _is_record(place):
        return "it is a record"
    for folder in folders:
        if place.exists() and folder.resolve() in place.parent.parents:
            return f"it is there already, and what is in the folders of {folder} is only read"
        if place.suffix == ".json" and place.parent == folder.resolve():
            return f"any .json file in {folder} is read as a record"
    above = next(each for each in place.parents if each.exists())
    if not above.is_dir():
        return f"{above.name} is a file"
    return None if os.access(above, os.W_OK | os.X_OK) else f"there is no permission to write into {above}"


def _with_records(place: Path) -> list[Path]:
    """Return the folders above a file, up to that of a run's folder of attempts, that have records in them."""
    return [folder for folder in place.parents[:3] if any(map(_is_record, folder.glob(f"{'[0-9a-f]' * 16}.json")))]


def _is_record(path: Path) -> bool:
    import results

    try:
        results.read(path)
    except ValueError:
        return False
    return True


def write_files(contents: Sequence[tuple[Path, str | bytes]], folders: Sequence[Path]) -> None:
    """Write files, all or none; raise ValueError as `check_files` does, and where the disk does not take them."""
    import results

    check_files([path for path, _ in contents], folders)
    results.write_files(
        {path: text if isinstance(text, bytes) else text.encode(errors="backslashreplace") for path, text in contents}
    )
    for path, _ in contents:
        note(f"wrote {path}")
