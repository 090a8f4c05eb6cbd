"""The page of results/speed, from the races that lie there.

python -m tests.results.speed_page > results/speed/README.md
"""

import json
from pathlib import Path
from typing import Any

from harness.cli.race import ratio_cells
from harness.measures.comparison import Ratio
from harness.racing.race import mean_ratio

FOLDER = Path(__file__).parents[2] / "results" / "speed"

HEAD = """# Speed

Each table is one run of the command above it: candidates measured in turn, after their outputs and gradients were
compared with float64 ([racing](../../docs/speed.md)). *x baseline* is the time over the first candidate's, with its
95 % interval; *faster* is how many times as fast that is. Where candidates have unlike numbers of multiply-adds, *per
MAC* is the ratio of times per multiply-add ([of attention alone](../../docs/numbers.md#cost)). The JSON files hold
every block.
`tests/plain_forms.py` has the papers' attentions in plain operators of torch, and timm's models.
Times of GPUs are pending: none was at hand.
"""

REASONS = {
    "angular": "normalises queries and keys in passes of their own, none of which counts a multiply-add",
    "hydra": "has no matrix product, only passes that count no multiply-add",
    "mlla": "rotates queries and keys, and sums scores before, in passes that count no multiply-add",
    "performer": "takes exponentials of more features than a head has channels; they count no multiply-add",
}
"""Why an attention takes more than `LARGEST` times as long per multiply-add as `linear`."""

LARGEST = 3.0


def races() -> list[tuple[Path, dict[str, Any]]]:
    """Return the races in the folder, by name of the file."""
    return [(path, json.loads(path.read_text())) for path in sorted(FOLDER.glob("*.json"))]


def inputs() -> list[tuple[Path, dict[str, Any]]]:
    """Return the races of inputs of a training."""
    return [(path, json.loads(path.read_text())) for path in sorted((FOLDER / "input").glob("*.json"))]


def page() -> str:
    """Return the page as Markdown."""
    lines = [line for path, race in races() for line in sections(path, race)]
    return "\n".join([HEAD, *lines, *(line for path, race in inputs() for line in input_section(path, race))])


def begin(path: Path, race: dict[str, Any], title: str) -> list[str]:
    """Return a heading, the command, and where it ran."""
    about = race["environment"]
    command = f"{race['command']} -o results/speed/{path.relative_to(FOLDER)}"
    where = f"{about['device_name']}, {about['threads']} threads, torch {about['torch']}, commit {about['commit'][:7]}."
    return [f"## {title}", "", f"`{command}`", "", where, ""]


def input_section(path: Path, race: dict[str, Any]) -> list[str]:
    """Return the lines on a race of inputs: a row for each."""
    lines = begin(path, race, f"input of a training, {path.stem.replace('_', ' ')}")
    lines += ["`python -m tests.photographs photographs` makes the images.", ""]
    lines += ["| input | images/s | x timm (95 %) | faster |", "| --- | ---: | ---: | ---: |"]
    for row in race["results"]:
        ratio, times = "", ""
        if row["ratio"] is not None:
            ratio, times = shown(
                Ratio(*(row[name] for name in ("ratio", "ratio_low", "ratio_high", "rounds", "disturbed")))
            )
        lines.append(f"| {row['input']} | {row['images_per_s']:.4g} | {ratio} | {times} |")
    disturbed = next((row["disturbed"] for row in race["results"] if row["disturbed"]), None)
    return [*lines, *(["", f"Disturbed: {disturbed}."] if disturbed else []), ""]


def sections(path: Path, race: dict[str, Any]) -> list[str]:
    """Return the lines on one race: its command, where it ran, a row for each place and candidate, and means."""
    lines = begin(path, race, path.stem.replace("_", " "))
    unlike = any(len({row["operations"] for row in place["results"]}) > 1 for place in race["places"])
    lines += [
        f"| place | candidate | ms | x baseline (95 %) | faster | saved MiB |{' per MAC |' * unlike}",
        f"| --- | --- | ---: | ---: | ---: | ---: |{' ---: |' * unlike}",
    ]
    ratios: dict[str, list[Ratio]] = {}
    for place in race["places"]:
        baseline = place["results"][0]
        for row in place["results"]:
            ratio, times = "", ""
            if row["ratio"] is not None:
                given = (row[name] for name in ("ratio", "ratio_low", "ratio_high", "rounds", "disturbed"))
                found = Ratio(*given)
                ratio, times = shown(found)
                ratios.setdefault(row["candidate"], []).append(found)
            saved = "" if row["saved_mib"] is None else f"{row['saved_mib']:.1f}"
            cells = [row["place"] or "whole model", row["candidate"], f"{row['ms_p50']:.4g}", ratio, times, saved]
            if unlike:
                cells.append(per_multiply_add(row, baseline))
            lines.append(f"| {' | '.join(cells)} |")
    for candidate, values in ratios.items():
        if len(values) > 1:
            means = " | ".join(shown(mean_ratio(values)))
            lines.append(f"| geometric mean | {candidate} | | {means} | |{' |' * unlike}")
    names = {row["candidate"] for place in race["places"] for row in place["results"]}
    reasons = [f"`{name}` {reason}." for name, reason in REASONS.items() if unlike and name in names]
    return [*lines, *(["", " ".join(reasons)] if reasons else []), ""]


def per_multiply_add(row: dict[str, Any], baseline: dict[str, Any]) -> str:
    """Return the time of a row per multiply-add, over that of the baseline; nothing for the baseline itself."""
    ratio = time_per_operation(row, baseline)
    return "" if row is baseline else "no products" if ratio > 1000 else f"{ratio:.1f}"


def time_per_operation(row: dict[str, Any], baseline: dict[str, Any]) -> float:
    """Return the time of a row per operation, over that of the baseline."""
    return (row["ratio"] or 1.0) * float(baseline["operations"]) / max(1.0, row["operations"])


def shown(ratio: Ratio) -> tuple[str, str]:
    """Return a ratio with its interval, and how many times as fast that is."""
    verdict = "" if ratio.decided else ", not decided"
    return ratio_cells(ratio)[0], f"{1 / ratio.value:.2f}{verdict}"


if __name__ == "__main__":
    print(page(), end="")
