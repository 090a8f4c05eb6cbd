"""The parquet files of a Hugging Face data set, as `huggingface-cli download` saves them.

A parquet file is read by row groups, of 100 images in most sets: in order that costs nothing, but training, which reads
in shuffled order, reads a hundred images for each one it uses. Parquet suits evaluation; for long training, unpack into
class folders or tars. (`datasets`, which timm would use, writes a second copy of the entire set instead.)
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from harness.images.readers import Reader


class ParquetReader(Reader):
    """Images of parquet files with a column of images (`bytes` and `path`) and one of class numbers.

    Raises ValueError where pyarrow is missing, and for other columns or labels.
    """

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        parquet = _pyarrow_parquet(paths[0].parent)
        names: list[str] = []
        self.targets: list[int] = []
        groups: list[tuple[int, int, int]] = []  # file, row group, the first index in it
        schema = None
        for number, path in enumerate(paths):
            file = _opened(parquet, path)
            if schema is None:
                schema = file.schema_arrow
                self.column, label, self.classes = _columns(schema, path)
            elif not file.schema_arrow.equals(schema):
                raise ValueError(f"{path} has other columns than {paths[0].name}")
            table = file.read(columns=[label, f"{self.column}.path"], use_threads=False)
            images = table.column(self.column).to_pylist()
            names += [f"{row}/{(image or {}).get('path') or ''}".rstrip("/") for row, image in enumerate(images)]
            start = len(self.targets)
            self.targets += table.column(label).to_pylist()
            for group in range(file.num_row_groups):
                groups.append((number, group, start))
                start += file.metadata.row_group(group).num_rows
        if not self.targets:
            raise ValueError(f"no image in {paths[0]}")
        count = len(self.classes) or 1 + max((t for t in self.targets if isinstance(t, int)), default=0)
        for name, target in zip(names, self.targets, strict=True):
            if not isinstance(target, int) or not 0 <= target < count:
                where = f"{paths[0].parent}, row {name}"
                raise ValueError(f"{where}: the label is {target}; expected a class number from 0 to {count - 1}")
        self.classes = self.classes or tuple(map(str, range(count)))
        self.names, self.groups = names, np.array(groups, np.int64)
        self._read: tuple[int, Any] = (-1, None)  # the row group read last, as all of it was decompressed

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_read": (-1, None)}

    def encoded(self, index: int) -> bytes:
        which = int(np.searchsorted(self.groups[:, 2], index, side="right")) - 1
        file, group, start = self.groups[which].tolist()
        if self._read[0] != which:
            path = self.paths[file]
            opened = _opened(_pyarrow_parquet(path.parent), path)
            # no threads: those of the parent do not exist in a forked worker
            table = opened.read_row_group(group, columns=[f"{self.column}.bytes"], use_threads=False)
            self._read = which, table.column(self.column)
        image = self._read[1][index - start].as_py()
        if image is None or image["bytes"] is None:
            raise OSError("the row has no image")
        return image["bytes"]

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


def _columns(schema: Any, path: Path) -> tuple[str, str, tuple[str, ...]]:
    """Return the names of the image column, the label column, and the classes if Hugging Face's metadata has them."""
    described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    images = [field.name for field in schema if _fields(field.type) >= {"bytes", "path"}]
    labels = [name for name, about in described.items() if about.get("_type") == "ClassLabel"]
    if not labels and "label" in schema.names:
        labels = ["label"]
    if len(images) != 1 or len(labels) != 1:
        raise ValueError(f"{path} has the columns {', '.join(schema.names)}; expected one of images and one of classes")
    return images[0], labels[0], tuple(described.get(labels[0], {}).get("names", ()))


def _fields(kind: Any) -> set[str]:
    return {kind.field(i).name for i in range(kind.num_fields)} if str(kind).startswith("struct<") else set()
