"""CSV: what pandas writes, in a third of the time."""

import csv
import io
import math

import pandas as pd

from results.tables import to_csv

AWKWARD = ["a, b", 'a "b"', "two\nlines", "a\rb", "", " ", "'", "ünï", None]


def test_a_frame_is_written_as_pandas_does_it() -> None:
    size = len(AWKWARD)
    frame = pd.DataFrame(
        {
            "text": pd.Series(["a, b", 'a "b"', "two\nlines", "", " ", "'", "ünï", None, "x"], dtype="str"),
            "number": [0.1 + 0.2, -0.0, 0.0, 1e-5, 1e16, 123456789.0, math.inf, None, -1e-300],
            "whole": pd.Series([1, 2, None, 2**62, -5, 0, 7, 8, 9], dtype="Int64"),
            "plain_whole": range(size),
            "truth": [True, False] * (size // 2) + [True],
            "mixed": pd.Series([1, 1.0, True, "1", None, [1, "a"], {"a": 1}, 2**70, 0.5], dtype=object),
            "a, title": ["same"] * size,
        }
    )
    assert to_csv(frame) == frame.to_csv(index=False, lineterminator="\n")


def test_every_text_comes_back() -> None:
    frame = pd.DataFrame({"text": pd.Series(AWKWARD, dtype="str"), "row": range(len(AWKWARD))})
    lines = list(csv.reader(io.StringIO(to_csv(frame), newline="")))
    assert [text for text, _ in lines[1:]] == [text or "" for text in AWKWARD]
    back = pd.read_csv(io.StringIO(to_csv(frame), newline=""), keep_default_na=False)
    assert back["text"].tolist() == [text or "" for text in AWKWARD]
