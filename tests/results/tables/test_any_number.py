"""Numbers of any size and columns of several types reach every form as they are."""

import io
from typing import Any

import pandas as pd

from results.tables import pivoted, rendered, sheet, table
from results.tables.texts import number_text


def test_whole_numbers_of_any_size_and_columns_of_several_types(make: Any) -> None:
    values: tuple[Any, ...] = (2**70, 2**60, -1, None)
    others: tuple[Any, ...] = ("text", 0.5, float("nan"), 2**60)
    records = [
        make.record(
            f"k{n}",
            make.cell("swin_t", "a", make.train(seed=n)),
            {"big": big, "mixed": other, "both": (big, 0.5)[n % 2]},
        )
        for n, (big, other) in enumerate(zip(values, others, strict=True))
    ]
    frame = table(records)
    content = rendered("parquet", frame, lambda: sheet(frame))
    assert isinstance(content, bytes)
    read = pd.read_parquet(io.BytesIO(content))
    assert [None if pd.isna(value) else int(value) for value in read["big"]] == list(values)
    assert read["mixed"].tolist() == ["text", "0.5", "nan", str(2**60)]
    assert str(2**70) in str(rendered("csv", frame, lambda: sheet(frame)))
    assert str(2**70) in str(rendered("json", frame, lambda: sheet(frame)))


def test_a_text_in_place_of_an_accuracy_has_no_standard_error(make: Any) -> None:
    records = [
        make.record(name, make.cell("swin_t", name, make.train()), {"top1": top1, "top1_stderr": 0.3424})
        for name, top1 in (("a", "high"), ("b", True), ("c", 80.0))
    ]
    frame = table(records)
    view = sheet(frame)
    assert [row[list(view.headers).index("top1")] for row in view.rows] == ["high", "True", "80.00 ± 0.34"]
    assert [row[1] for row in pivoted(frame, "attention x backbone", ["top1"])[1].rows] == [
        "high",
        "True",
        "80.00 ± 0.34",
    ]
    assert str(rendered("timm", frame, lambda: view)).count("80.0") == 1


def test_no_number_ends_with_its_point() -> None:
    assert number_text("images_per_s", 9.97) == "10"
    assert number_text("images_per_s", 9.5) == "9.5"
