"""Pages that several of these tests look at, made of the committed records and of planted ones."""

import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np

import results
from results import Record, tables
from results.figures import curves, maps, read_figure, render
from results.report import Paper, Report, report_page
from tests.results.figures.common import FASHION, QUICKSTART
from tests.results.figures.test_maps import seen

EVIL = "</script><script>window.evil = 1</script><img src=x onerror='window.evil = 2'>&amp; \u2028"
"""Markup that must stay text."""

PAPER = Paper("linear", "Linear attention", "Katharopoulos", "2006.16236")
RUN = "10f7b29026c6c95f"
"""A training of Fashion-MNIST, of focused attention with seed 2, that was interrupted."""


def fashion(folder: Path) -> list[Record]:
    """Trainings of four attentions with five seeds, with the bits of each; one has epochs and was resumed."""
    shutil.copytree(FASHION, folder)
    lines = [{"epoch": epoch, "top1": 70.0 + 5 * epoch, "train_loss": 1 / epoch} for epoch in (1, 2, 3)]
    (folder / RUN / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / RUN / "attempts").mkdir()
    starts = [{"step": 5, "steps": 10, "epochs": 3, "host": EVIL, "ended": None}, {"host": "b", "ended": "done"}]
    for number, start in enumerate(starts, 1):
        (folder / RUN / "attempts" / f"{number:04d}.json").write_text(json.dumps(start))
    return results.read_all(folder)[0]


def quickstart() -> list[Record]:
    """Costs, speeds and trainings; one more speed was disturbed, two cells failed."""
    records = results.read_all(QUICKSTART)[0]
    speed = next(record for record in records if record.cell["task"]["name"] == "speed")
    costs = next(record for record in records if record.cell["task"]["name"] == "costs")
    cell = copy.deepcopy(speed.cell)
    cell["backbone"] |= {"name": EVIL, "num_classes": 11}
    disturbed = speed.metrics | {"infer_disturbed": f"a neighbour {EVIL}"}
    planted = [Record("a" * 16, cell, "done", disturbed, speed.environment)]
    for number, (status, error) in enumerate((("failed", f"Traceback\nRuntimeError: {EVIL}"), ("oom", "no memory"))):
        cell = copy.deepcopy(costs.cell)
        cell["backbone"] |= {"name": EVIL, "num_classes": 20 + number}
        planted.append(Record(f"{number:016d}", cell, status, {}, costs.environment, error))
    return [*records, *planted]


def published() -> Any:
    rows = tables.published_rows("flatten")
    rows = rows[(rows["model"] == "DeiT-T") & (rows["primary"] == "1")]
    ours = [
        {"model": "DeiT-T", "resolution": 224, "params_m": 5.72, "gmacs": 1.254, "gmacs_fvcore": 1.26, "top1": None}
    ]
    return tables.compare(rows, ours)


def slider(folder: Path) -> Path:
    """The file of a figure of a photograph, with a slider between four queries."""
    weights = np.random.default_rng(0).random((4, 2, 4, 4))
    figure = maps([seen(weights, EVIL, queries=(0, 5, 10, 15))], [f"A note. {EVIL}"], title=f"Maps {EVIL}")
    return render(figure, folder / "maps.json")


def page_of(records: list[Record], **changes: Any) -> str:
    frame = tables.table(records, changes.get("expected", ()), results.certificates())
    return report_page(Report(**{"title": "Tested", "records": records, "frame": frame} | changes))


def full_page(folder: Path) -> str:
    """A page with everything that a page can have."""
    trained = fashion(folder)
    records = [*trained, *quickstart()]
    missing = copy.deepcopy(records[0].cell)
    missing["task"]["seed"] = 9
    return page_of(
        records,
        title=f"Tested {EVIL}",
        expected=[*((record.key, record.cell) for record in records), ("f" * 16, missing)],
        certificates=results.certificates(),
        comparisons=tables.comparisons(trained),
        published=published(),
        published_keys=[[next(r.key for r in records if r.cell["task"]["name"] == "costs" and r.metrics)]],
        curves=curves(trained),
        further=[read_figure(slider(folder.parent))],
        commands={record.key: f"attention-bench again {EVIL} --seed 0 --out again" for record in trained},
        papers=[PAPER],
        notes=[EVIL],
        sources=[EVIL],
        made="2026-11-29",
    )


def data_of(page: str) -> dict[str, Any]:
    """The data block of a page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data
