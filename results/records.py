"""One measured cell is one JSON file, written completely or not at all; tables are made from these files."""

import errno
import json
import marshal
import math
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from results.garbage import no_collection

SCHEMA = 1
STATUSES = ("done", "oom", "failed")

SOURCE = "attention_source"
"""In the environment of a record: the hash of the attention's code."""

# JSON has no such numbers, but a diverged loss is a finding: such a metric is stored as text.
_NON_FINITE = ("nan", "inf", "-inf")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class Record:
    """The outcome of one cell.

    `key` names the cell and the file. `cell` is the cell as plain JSON:
    {"backbone": {"name": ..., "attention": ..., ...}, "task": {"name": ..., ...}}.
    `status` is "done", "oom" or "failed", and `error` says why (the traceback) if it is not "done".
    `metrics` are named with their units (`params_m`, `images_per_s`); a value that does not exist is None.
    `environment` is what else the measurement may depend on: commit, versions, device.
    `created` is an ISO time in UTC. `folder` is where it was read from, if it was; its file does not say so.
    """

    key: str
    cell: dict[str, Any]
    status: str
    metrics: dict[str, Any]
    environment: dict[str, Any]
    error: str | None = None
    created: str = field(default_factory=_now)
    folder: Path | None = field(default=None, compare=False)

    @property
    def disturbed(self) -> dict[str, str]:
        """What disturbed its measurements, by what was measured: "infer", "train", "loop"; empty if all was quiet."""
        ending = "_disturbed"
        found = {name.removesuffix(ending): value for name, value in self.metrics.items() if name.endswith(ending)}
        return {name: value for name, value in found.items() if isinstance(value, str)}

    @property
    def wrong(self) -> str | None:
        """How wrong the outputs of its runtime are, which then has no time; None if they are right, or it was torch."""
        outputs = self.metrics.get("runtime_outputs")
        return outputs if isinstance(outputs, str) and outputs.startswith("wrong") else None

    @property
    def reason(self) -> str:
        """The last line of the error, which says what went wrong; empty if there is none."""
        lines = (self.error or "").strip().splitlines()
        return lines[-1] if lines else ""


_STORED = tuple(f.name for f in fields(Record) if f.name != "folder")
_EXPECTED = {"schema", *_STORED}
_CHUNK = 2**16
_DECODER = json.JSONDecoder(parse_constant=lambda constant: _refuse(constant))


def model_of(backbone: Mapping[str, Any]) -> str:
    """Return the model that a cell's `backbone` describes, as JSON text: all of it but its label, `name`."""
    model = {name: value for name, value in backbone.items() if name != "name"}
    try:
        return orjson.dumps(model, option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONEncodeError:  # halves of surrogates, and whole numbers beyond 64 bits
        return json.dumps(model, sort_keys=True)


def write_text(path: Path, text: str) -> Path:
    """Write a UTF-8 file so that readers see the old or the new text, never a part of it; return the path.

    Creates the folder. Raises ValueError if the folder or file cannot be written.
    """
    return write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_bytes(path: Path, content: bytes) -> Path:
    """Write a binary file as `write_text` writes a text file."""
    write_files({path: content})
    return path


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write files as `write_bytes` does; where the disk does not take one of them, none of them is changed."""
    path = Path()
    try:
        with ExitStack() as stack:
            streams = []
            for path, content in contents.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                # A random name, since two processes may write one file; a plain open, since the umask decides who may
                # read it.
                temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
                streams.append(stack.enter_context(replacing(path, temporary)))
                streams[-1].write(content)
                streams[-1].flush()
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror}") from error


@contextmanager
def replacing(path: Path, temporary: Path) -> Iterator[BinaryIO]:
    """Open `temporary`, in the folder of `path`, to be written; it takes the place of `path` when the block ends.

    Both the content and the new name are on the disk then. Until then, and after an error, `path` is as it was.
    Raises OSError.
    """
    try:
        with open(temporary, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems, of other systems or in user space, cannot sync a folder.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def recordable(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return metrics as a record holds them: scalars of NumPy or torch become numbers of Python.

    Raises ValueError, naming the metric, for a value that is neither None, a number, a text, nor a list or an object of
    these; NaN and infinity are allowed outside lists and objects.
    """
    return {name: _recordable(name, value, False) for name, value in metrics.items()}


def _recordable(name: str, value: Any, nested: bool) -> Any:
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, list | tuple):
        return [_recordable(name, each, True) for each in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _recordable(name, each, True) for key, each in value.items()}
    if nested and isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"metric {name} holds {value} inside a list or an object; it is allowed as a value of its own")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(
        f"metric {name} is a {type(value).__name__}; allowed: None, numbers, texts, lists and objects of these"
    )


def write(folder: Path, record: Record) -> Path:
    """Write the record to `folder/<key>.json` and return that path.

    Raises ValueError if the folder cannot be written, and for NaN or infinity in the cell or the environment;
    in metrics they are allowed.
    """
    assert re.fullmatch(r"[\w-]+", record.key), f"unsuitable as a file name: {record.key!r}"
    assert record.status in STATUSES, record.status
    values = {name: getattr(record, name) for name in _STORED}
    values["metrics"] = {name: _to_json(value) for name, value in record.metrics.items()}
    text = json.dumps({"schema": SCHEMA, **values}, indent=2, allow_nan=False)
    return write_text(folder / f"{record.key}.json", text + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises ValueError, in one line with the path, for a file that cannot be read, is not complete JSON (NaN and
    infinity are none), or holds something other than an object.
    """
    return _read_json(str(path))


def _read_json(path: str) -> dict[str, Any]:
    try:
        content = _content(path)
        try:
            values = orjson.loads(content)
        except orjson.JSONDecodeError:
            # It refuses halves of surrogates, which stand for bytes of file names that are not UTF-8.
            values = _DECODER.decode(content.decode("utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a complete JSON file: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: does not hold a JSON object")
    return values


def _content(path: str) -> bytes:
    """Return what is in a file; for small files in half the time of `open`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = part = os.read(descriptor, _CHUNK)
        while len(part) == _CHUNK:
            part = os.read(descriptor, _CHUNK)
            content += part
        return content
    finally:
        os.close(descriptor)


def read(path: Path) -> Record:
    """Return the record in `path`. Raises ValueError with the path and what is wrong if it is missing or damaged."""
    return _read(str(path), path.stem, path.parent, {})


def read_all(folder: Path) -> tuple[list[Record], list[str]]:
    """Read all valid records of a folder, in the order of file names; return them and a line for each damaged file.

    A folder that is empty or does not exist has no records and no problems. Records share what is equal in them, a
    backbone or a recipe, so that a hundred thousand of them fit into memory: do not change them.
    """
    records, problems = [], []
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries, no_collection():
        shared: dict[object, Any] = {}
        start = os.path.join(folder, "")
        for name in sorted(entry.name for entry in entries if entry.name.endswith(".json")):
            try:
                records.append(_read(start + name, name.removesuffix(".json"), folder, shared))
            except ValueError as error:
                problems.append(str(error))
    return records, problems


def _read(path: str, stem: str, folder: Path, shared: dict[object, Any]) -> Record:
    values = _read_json(path)
    problem = _problem(values, stem)
    if problem:
        raise ValueError(f"{path}: {problem}")
    values.pop("schema")
    cell = values["cell"]
    cell["backbone"] = _shared(cell["backbone"], shared)
    cell["task"] = _shared(cell["task"], shared)
    values["metrics"] = {
        name: float(value) if type(value) is str and value in _NON_FINITE else value
        for name, value in values["metrics"].items()
    }
    values["environment"] = _of_shared(values["environment"], shared)
    return Record(**values, folder=folder)


def _of_shared(values: dict[str, Any], shared: dict[object, Any]) -> dict[str, Any]:
    """Return a dict, half as large as that of the parser, of the values, each an equal one that was there before."""
    found = {}
    for name, value in values.items():
        kind = type(value)
        if kind is str:
            value = shared.setdefault(value, value)
        elif kind is dict or kind is list:
            value = _shared(value, shared)
        found[name] = value
    return found


def _shared(value: Any, shared: dict[object, Any]) -> Any:
    """Return an object or a list, or an equal one that was there before; of a new object, its values are shared."""
    # The second version of the format depends on nothing but the value.
    form = marshal.dumps(value, 2)
    if form not in shared:
        shared[form] = _of_shared(value, shared) if isinstance(value, dict) else value
    return shared[form]


def _to_json(value: object) -> object:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _problem(values: dict[str, Any], stem: str) -> str | None:
    """Return why parsed JSON is not the record named `stem`, or None if it is."""
    if values.get("schema") != SCHEMA:
        return f"schema is {values.get('schema')!r}, but this version reads {SCHEMA}"
    if values.keys() != _EXPECTED:
        if missing := _EXPECTED - values.keys():
            return f"missing: {', '.join(sorted(missing))}"
        return f"unknown: {', '.join(sorted(values.keys() - _EXPECTED))}"
    for name in ("cell", "metrics", "environment"):
        if not isinstance(values[name], dict):
            return f"{name} is not a JSON object"
    for part in ("backbone", "task"):
        block = values["cell"].get(part)
        if not isinstance(block, dict) or not isinstance(block.get("name"), str):
            return f"cell.{part} is not a JSON object with a name"
    if not isinstance(values["cell"]["backbone"].get("attention"), str):
        return "cell.backbone has no attention"
    if values["status"] not in STATUSES:
        return f"status is {values['status']!r}, not one of {', '.join(STATUSES)}"
    for name in ("key", "created"):
        if not isinstance(values[name], str):
            return f"{name} is not a string"
    if not isinstance(values["error"], str | None):
        return "error is neither a string nor null"
    if values["key"] != stem:
        return f"key {values['key']} is not the name of the file"
    return None
