"""The parquet files of a Hugging Face data set, as `hf download` saves them, and those that pandas or Spark write.

Images are read one by one (pages.py), in any order. (`datasets`, which timm would use, writes a second copy of the
entire set instead.)
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from harness.cells.source import Columns
from harness.images.names import check_order, natural_key
from harness.images.pages import CODECS, ENCODINGS, Chunk, PagedColumn
from harness.images.readers import Reader


class ParquetReader(Reader):
    """Images of parquet files with a column of images and one of classes.

    Images are bytes, or structs of `bytes` and `path` as the Hub has them. Classes are numbers, with names where
    Hugging Face's metadata has them, or texts, which are then in natural order. `columns` names the two, where more
    than one column could be meant.

    Raises ValueError where pyarrow is missing, and for other columns or labels.
    """

    def __init__(self, paths: list[Path], columns: Columns = Columns()) -> None:  # noqa: B008, a frozen value
        self.paths = paths
        parquet = _pyarrow_parquet(paths[0].parent)
        self.names: list[str] = []
        labels: list[Any] = []
        groups: list[tuple[int, int, int]] = []  # file, row group, the first index in it
        chunks: list[Chunk] = []
        schema = None
        for number, path in enumerate(paths):
            file = _opened(parquet, path)
            if schema is None:
                schema = file.schema_arrow
                image, label, described = _columns(schema, path, columns)
                fields = _fields(schema.field(image).type)
                self.column = f"{image}.bytes" if fields else image
                path_column = [f"{image}.path"] if "path" in fields else []
            elif not file.schema_arrow.equals(schema):
                raise ValueError(f"{path} has other columns than {paths[0].name}")
            table = file.read(columns=[label, *path_column], use_threads=False)
            rows: Iterable[Any] = table.column(image).to_pylist() if path_column else [None] * len(table)
            self.names += [f"{row}/{(about or {}).get('path') or ''}".rstrip("/") for row, about in enumerate(rows)]
            start = len(labels)
            labels += table.column(label).to_pylist()
            for group in range(file.num_row_groups):
                groups.append((number, group, start))
                chunks.append(_chunk(file, path, group, self.column))
                start += chunks[-1].rows
        if not labels:
            raise ValueError(f"no image in {paths[0]}")
        self.targets, self.classes = self._numbered(labels, described)
        self.groups = np.array(groups, np.int64)
        self.pages = PagedColumn(chunks)
        self._read: tuple[int, Any] = (-1, None)  # the row group read last, where pages cannot be told apart

    def _numbered(self, labels: list[Any], described: tuple[str, ...]) -> tuple[list[int], tuple[str, ...]]:
        """Return targets and classes. Raises ValueError for a label that is no class."""
        texts = {label for label in labels if isinstance(label, str)}
        if texts:
            check_order(texts, str(self.paths[0].parent))
            classes = tuple(sorted(texts, key=natural_key))
            targets = {name: target for target, name in enumerate(classes)}
            expected = "a text, as in other rows"
        else:
            numbers = [label for label in labels if isinstance(label, int)]
            classes = described or tuple(map(str, range(1 + max(numbers, default=0))))
            targets = {number: number for number in range(len(classes))}  # type: ignore[misc]
            expected = f"a class number from 0 to {len(classes) - 1}"
        for name, label in zip(self.names, labels, strict=True):
            if label not in targets:
                raise ValueError(f"{self.paths[0].parent}, row {name}: the label is {label}; expected {expected}")
        return [targets[label] for label in labels], classes

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_read": (-1, None)}

    def encoded(self, index: int) -> bytes:
        which = int(np.searchsorted(self.groups[:, 2], index, side="right")) - 1
        file, group, start = self.groups[which].tolist()
        if self.pages.chunks[which].codec is not None:
            image = self.pages.value(which, index - start)
        else:
            image = self._decoded(which, file, group)[index - start].as_py()
            image = image["bytes"] if isinstance(image, dict) else image
        if image is None:
            raise OSError("the row has no image")
        return image

    def _decoded(self, which: int, file: int, group: int) -> Any:
        if self._read[0] != which:
            path = self.paths[file]
            opened = _opened(_pyarrow_parquet(path.parent), path)
            # no threads: those of the parent do not exist in a forked worker
            table = opened.read_row_group(group, columns=[self.column], use_threads=False)
            self._read = which, table.column(0)
        return self._read[1]

    def filename(self, index: int) -> str:
        which = int(np.searchsorted(self.groups[:, 2], index, side="right")) - 1
        return f"{self.paths[self.groups[which, 0]]}/{self.names[index]}"

    def files(self) -> list[Path]:
        return self.paths


def _pyarrow_parquet(where: Path) -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise ValueError(f"{where} has parquet files, which need pyarrow: pip install -e '.[hf]'") from None
    return pyarrow.parquet


def _opened(parquet: Any, path: Path) -> Any:
    import pyarrow

    try:
        return parquet.ParquetFile(path, memory_map=False, pre_buffer=False)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path} is not a complete parquet file: {str(error).splitlines()[0]}") from None


def _chunk(file: Any, path: Path, group: int, column: str) -> Chunk:
    """Return where the images of a row group are; its `codec` is None if pages.py cannot read them one by one."""
    about = file.metadata.row_group(group)
    number = [about.column(n).path_in_schema for n in range(about.num_columns)].index(column)
    chunk, leaf = about.column(number), file.schema.column(number)
    starts = [at for at in (chunk.dictionary_page_offset, chunk.data_page_offset) if at]
    readable = leaf.max_repetition_level == 0 and set(chunk.encodings) <= ENCODINGS
    codec = CODECS.get(chunk.compression) if readable and leaf.physical_type == "BYTE_ARRAY" else None
    start = min(starts)
    return Chunk(path, start, start + chunk.total_compressed_size, about.num_rows, leaf.max_definition_level, codec)


def _columns(schema: Any, path: Path, columns: Columns) -> tuple[str, str, tuple[str, ...]]:
    """Return the names of the image column and the label column, and the classes if Hugging Face's metadata has them.

    Raises ValueError unless there is one of each that can be meant, or `columns` names it.
    """
    described = _described(schema)
    structs = [field.name for field in schema if "bytes" in _fields(field.type)]
    images = structs or [field.name for field in schema if _is_bytes(field.type)]
    labels = list(described)
    if not labels and "label" in schema.names:
        labels = ["label"]
    labels = labels or [field.name for field in schema if field.name not in images and _is_label(field.type)]
    images = images if columns.image is None else [name for name in schema.names if name == columns.image]
    labels = labels if columns.label is None else [name for name in schema.names if name == columns.label]
    if len(images) != 1 or len(labels) != 1:
        raise ValueError(
            f"{path} has the columns {', '.join(schema.names)}; expected one of images and one of classes: "
            "name them behind the folder, as in --data FOLDER,image=NAME,label=NAME"
        )
    if not ("bytes" in _fields(schema.field(images[0]).type) or _is_bytes(schema.field(images[0]).type)):
        raise ValueError(f"{path}: the column {images[0]} holds {schema.field(images[0]).type} and not images as bytes")
    kind = schema.field(labels[0]).type
    if not (_is_label(kind) or str(kind) in ("bool", "null")):  # what is null is refused row by row
        raise ValueError(f"{path}: the column {labels[0]} holds {kind} and not class numbers (whole ones) or texts")
    return images[0], labels[0], described.get(labels[0], ())


def _described(schema: Any) -> dict[str, tuple[str, ...]]:
    """Return the columns that are of classes by Hugging Face's metadata, if there are any, and their names."""
    found = {}
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        for name, about in features.items():
            # a feature may be a list of others
            if isinstance(about, dict) and about.get("_type") == "ClassLabel" and name in schema.names:
                found[name] = tuple(about.get("names") or ())
    except (TypeError, LookupError, ValueError, AttributeError):
        return {}
    return found


def _fields(kind: Any) -> set[str]:
    return {kind.field(i).name for i in range(kind.num_fields)} if str(kind).startswith("struct<") else set()


def _is_bytes(kind: Any) -> bool:
    return str(kind) in ("binary", "large_binary", "binary_view")


def _is_label(kind: Any) -> bool:
    name = str(kind).lstrip("u")
    in_a_dictionary = name.startswith("dictionary<values=string")  # pandas' categories
    return in_a_dictionary or name in ("int8", "int16", "int32", "int64", "string", "large_string", "string_view")
