"""Every column has a meaning, the page says it, and the CSV comes back with the values and types of the records."""

import io
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import results
from results.tables import METRICS, schema, table, to_csv
from results.tables.columns import Column, columns_of, values_of
from results.tables.frames import BREAKDOWN

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "schema.md"


def test_the_page_is_made_from_the_schema() -> None:
    assert PAGE.read_text() == schema.page()


@pytest.mark.parametrize("folder", ["results/fashion_mnist", "tests/compatibility/a089b83/quickstart"])
def test_every_column_of_committed_records_has_a_meaning(folder: str) -> None:
    records, _ = results.read_all(ROOT / folder)
    assert records
    unknown = [column.name for column in columns_of(table(records)) if schema.meaning(column) is None]
    assert unknown == []


def test_metrics_of_the_code_have_a_meaning_with_a_unit() -> None:
    """Names of metrics as they are written in harness, and those that tables know."""
    text = "".join(path.read_text() for path in (ROOT / "harness").rglob("*.py"))
    written = set(re.findall(r'"((?:params|gmacs|top[15]|weights_|head_|loop_|nonfinite|data_wait)\w*)":', text))
    names = written | {*METRICS, *BREAKDOWN}
    assert len(names) > 25
    assert [name for name in sorted(names) if schema.of_metric(name) is None and name not in NO_METRICS] == []
    for name in (*METRICS, *BREAKDOWN):
        found = schema.of_metric(name)
        assert found is not None
        assert found.unit
        assert found.better


NO_METRICS = ("head_dim", "head", "weights_report", "top1_kind", "top1_weights")
"""Words of the code that begin like a metric."""


def test_a_metric_of_a_users_own_has_none() -> None:
    assert schema.meaning(Column.parse("my_metric")) is None
    assert schema.better("my_metric") == ""


def test_a_metric_behind_its_task_is_the_same() -> None:
    assert schema.of_metric("evaluate_top1") == schema.of_metric("top1")
    assert schema.better("train_images_per_s") == "higher"


def test_the_line_of_the_page_reads_what_was_recorded(make: Any) -> None:
    (line,) = re.findall(r"```python\n(pd\.read_csv.*)\n```", PAGE.read_text())
    models = [("None", "none", 7, True), ("null", "focused(kernel_size=None)", None, False), ("NA", "nan", 7, True)]
    cells = [
        make.cell(backbone, attention, make.train(seed=seed), window=window, pooled=pooled, family=backbone)
        for seed, (backbone, attention, window, pooled) in enumerate(models)
    ]
    metrics: list[dict[str, Any]] = [
        {"top1": 80.0, "train_loss": float("nan"), "n_images": 10, "top5": None},
        {"top1": 81.25, "train_loss": 0.5, "n_images": None, "top5": 95.5},
        {"top1": 1 / 3, "top5": None, "train_loss": None},
    ]
    keys = ("9253954e51983261", "12345678", "abcdef0123456789")
    records = [make.record(key, *pair) for key, pair in zip(keys, zip(cells, metrics, strict=True), strict=True)]
    frame = table(records)
    back = eval(line.replace('"table.csv"', "stream"), {"pd": pd, "stream": io.StringIO(to_csv(frame))})
    for name in ("backbone", "attention", "top1", "top5", "train_loss", "n_images", "train.seed", "model.pooled"):
        for ours, theirs in zip(values_of(frame[name]), back[name].tolist(), strict=True):
            assert repr(None if theirs is pd.NA else theirs) == repr(ours), name
    created = back["record.train.created"]
    assert str(created.dtype) == "timestamp[s, tz=UTC][pyarrow]"
    assert [time.isoformat() for time in created] == [record.created for record in records]
    assert set(back["record.train.key"]) == {"'9253954e51983261", "'12345678", "abcdef0123456789"}
    assert back["record.train.key"].str.removeprefix("'").tolist() == frame["record.train.key"].tolist()
