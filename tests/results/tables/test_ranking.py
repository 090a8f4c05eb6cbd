"""Only what may be compared is ranked: one model, equal circumstances, nothing disturbed or failed, one row each."""

from typing import Any

import pytest

from results.tables import pivoted, sheet, table


def ranks(make: Any, speeds: dict[str, dict[str, Any]], **metrics: Any) -> tuple[int, int]:
    records = [
        make.record(
            name, make.cell("swin_t", name, make.speed(**runtime)), {"images_per_s": 10.0 + n} | metrics.get(name, {})
        )
        for n, (name, runtime) in enumerate(speeds.items())
    ]
    view = sheet(table(records))
    return len(view.best), len(view.second)


def test_equal_circumstances_are_ranked(make: Any) -> None:
    assert ranks(make, {"a": {}, "b": {}, "c": {}}) == (1, 1)


@pytest.mark.parametrize(
    "runtime",
    [
        {"batch": 1},
        {"precision": "bf16"},
        {"device": "cuda"},
        {"mode": "compiled"},
        {"runtime": "onnxruntime", "version": "1.32.0"},
    ],
    ids=str,
)
def test_unequal_circumstances_are_not(make: Any, runtime: dict[str, Any]) -> None:
    assert ranks(make, {"a": {}, "b": runtime}) == (0, 0)
    assert ranks(make, {"a": {}, "b": runtime, "c": {}}) == (1, 1)


def test_another_version_of_a_runtime_is_another_contest(make: Any) -> None:
    old, new = ({"runtime": "onnxruntime", "version": version} for version in ("1.31.0", "1.32.0"))
    assert ranks(make, {"a": old, "b": new}) == (0, 0)
    assert ranks(make, {"a": old, "b": new, "c": old, "d": new, "e": {}, "f": {}}) == (3, 3)


def test_what_others_have_measured_is_not_ranked_and_leaves_our_ranks(make: Any) -> None:
    records = [
        make.record(name, make.cell("swin_t", name, make.speed()), {"images_per_s": n})
        for n, name in ((1.0, "a"), (2.0, "b"))
    ]
    for number, (name, device) in enumerate((("a", "M1"), ("b", "M1"), ("a", "M2"), ("b", "M2"))):
        task = {"name": "imported", "device": device, "batch": 1}
        metrics = {"imported_ms": 1.0 + number, "imported_images_per_s": 1e3 / (1 + number)}
        records.append(make.record(f"k{number}", make.cell("swin_t", name, task), metrics))
    view = sheet(table(records))
    ours, theirs = (view.headers.index(name) for name in ("images_per_s", "imported_images_per_s"))
    assert sorted((row[ours], row[theirs]) for row in view.rows) == [
        ("-", "1000"), ("-", "250"), ("-", "333"), ("-", "500"), ("1.0", "-"), ("2.0", "-"),
    ]  # fmt: skip
    assert {column for _, column in view.best | view.second} == {ours}
    assert len(view.best) == len(view.second) == 1


def test_a_disturbed_time_is_not_ranked(make: Any) -> None:
    assert ranks(make, {"a": {}, "b": {}}, b={"infer_disturbed": "others"}) == (0, 0)


def test_what_reads_alike_ranks_alike(make: Any) -> None:
    assert ranks(make, {"a": {}, "b": {}, "c": {}}, b={"images_per_s": 12.0004}) == (2, 1)


def test_several_seeds_of_an_attention_are_not_ranked(make: Any) -> None:
    records = [
        make.record(f"{name}{seed}", make.cell("swin_t", name, make.train(seed=seed)), {"top1": 80.0 + seed})
        for name in ("a", "b")
        for seed in (0, 1)
    ]
    assert sheet(table(records)).best == frozenset()


def test_another_backbone_or_image_size_is_another_contest(make: Any) -> None:
    records = [
        make.record(
            f"{name}{size}", make.cell("swin_t", name, make.costs, image_size=[size, size]), {"gmacs": size + n}
        )
        for n, name in enumerate(("a", "b"))
        for size in (224, 384)
    ]
    view = sheet(table(records))
    assert len(view.best) == len(view.second) == 2


@pytest.mark.parametrize("metrics", [{"val_list": "b"}, {"n_images": 50}], ids=str)
def test_accuracies_on_other_images_are_another_contest(make: Any, metrics: dict[str, Any]) -> None:
    images = {"n_images": 2000, "val_list": "a"}
    records = [
        make.record(name, make.cell("swin_t", name, make.train()), {"top1": top1, **images, **other})
        for name, top1, other in (("a", 80.0, {}), ("b", 90.0, metrics))
    ]
    assert sheet(table(records)).best == frozenset()


def test_a_pivot_ranks_no_more_than_a_table(make: Any) -> None:
    def view(**runtime: Any) -> Any:
        records = [
            make.record(name, make.cell("swin_t", name, make.speed(**each)), {"images_per_s": speed})
            for name, speed, each in (("a", 10.0, {}), ("b", 20.0, runtime))
        ]
        return pivoted(table(records), "attention x backbone", ["images_per_s"])[1]

    assert view().best == {(1, 1)}
    unlike = view(batch=128)
    assert (unlike.best, unlike.second) == (frozenset(), frozenset())
    assert "Not ranked, as the numbers are of unlike circumstances: swin_t." in unlike.notes


def test_evaluated_trainings_are_ranked_by_how_they_were_trained(make: Any) -> None:
    records = [
        record
        for name, top1 in (("a", 80.0), ("b", 90.0))
        for record in (
            make.record(f"t{name}", make.cell("swin_t", name, make.train()), {"top1": top1}),
            make.record(f"e{name}", make.cell("swin_t", name, make.evaluate_run(f"t{name}")), {"top1": top1 + 1}),
        )
    ]
    assert len(sheet(table(records)).best) == 2
    assert len(pivoted(table(records), "attention x backbone", ["evaluate_top1"])[1].best) == 1


@pytest.mark.parametrize("status", ["failed", "oom"])
def test_numbers_of_a_run_that_failed_are_not_ranked(make: Any, status: str) -> None:
    assert ranks_of(make, "gmacs", make.costs, c={"status": status, "error": "killed"}) == ("a", "b")
    assert ranks_of(make, "top1", make.train(), a={"status": status, "error": "killed"}) == ("c", "b")


def test_a_failure_of_another_task_takes_no_rank_away(make: Any) -> None:
    records = [
        record
        for n, name in enumerate(("a", "b"))
        for record in (
            make.record(f"c{name}", make.cell("swin_t", name, make.costs), {"gmacs": 1.0 + n}),
            make.record(f"s{name}", make.cell("swin_t", name, make.speed()), status="oom", error="memory"),
        )
    ]
    assert len(sheet(table(records)).best) == 1


@pytest.mark.parametrize("field", [{"dims": [64, 128]}, {"stages": "LLSS"}, {"window": 56}], ids=str)
def test_other_models_of_one_label_are_another_contest(make: Any, field: dict[str, Any]) -> None:
    assert ranks_of(make, "gmacs", make.costs, a={"model": field}) == ("b", "c")
    records = [
        make.record(name, make.cell("swin_t", name, make.costs, **own), {"gmacs": 1.0})
        for name, own in (("a", field), ("b", {}))
    ]
    notes = pivoted(table(records), "attention x backbone", ["gmacs"])[1].notes
    assert "Not ranked, as the numbers are of unlike circumstances: swin_t." in notes


def test_losses_of_other_recipes_are_another_contest(make: Any) -> None:
    assert ranks_of(make, "train_loss", make.train(), a={"task": make.train(epochs=9)}) == ("b", "c")


def test_a_text_in_place_of_a_number_is_not_ranked(make: Any) -> None:
    assert ranks_of(make, "top1", make.train(), c={"value": "high"}) == ("b", "a")


def test_a_pivot_neither_averages_nor_ranks_what_failed(make: Any) -> None:
    records = [
        make.record(f"{name}{seed}", make.cell("swin_t", name, make.train(seed=seed)), {"top1": top1}, status=status)
        for name, seed, top1, status in (
            ("a", 0, 80.0, "done"), ("a", 1, 10.0, "failed"), ("b", 0, 70.0, "done"), ("c", 0, 90.0, "failed"),
        )
    ]  # fmt: skip
    numbers, view = pivoted(table(records), "attention x backbone", ["top1"])
    assert numbers["swin_t"].tolist() == [80.0, 70.0, 90.0]
    assert (view.best, view.second) == ({(0, 1)}, {(1, 1)})


def ranks_of(make: Any, metric: str, task: dict[str, Any], **changes: dict[str, Any]) -> tuple[str, ...]:
    """The attentions with the best and the second best number among a, b and c, of which each has a larger one."""
    records = []
    for n, name in enumerate("abc"):
        own = {"value": 1.0 + n, "task": task, "model": {}, **changes.get(name, {})}
        cell = make.cell("swin_t", name, own.pop("task"), **own.pop("model"))
        records.append(make.record(name, cell, {metric: own.pop("value")}, **own))
    view = sheet(table(records), {metric: ""})
    return tuple(view.rows[row][1] for marked in (view.best, view.second) for row, _ in sorted(marked))
