"""People see what tells rows apart and what forbids comparing them, in every form of a table."""

import io
from collections.abc import Sequence
from typing import Any

import pytest
from rich.console import Console

from results import Record
from results.sheets import fitted
from results.tables import BREAKDOWN, METRICS, Sheet, labelled, notes, sheet, show, table, to_csv, to_markdown, to_plain


def column(view: Sheet, header: str) -> list[str]:
    return [row[list(view.headers).index(header)] for row in view.rows]


def two(make: Any, first: dict[str, Any], second: dict[str, Any], **metrics: float) -> list[Any]:
    return [
        make.record(key, make.cell("swin_t", "softmax", task), metrics) for key, task in (("a", first), ("b", second))
    ]


def test_digits_are_sensible_and_accuracy_has_its_standard_error(make: Any) -> None:
    metrics = {
        "params_m": 28.288354,
        "gmacs": 4.490566,
        "images_per_s": 1234.5,
        "train_step_ms_p50": 12.346,
        "top1": 83.524,
        "top1_stderr": 0.8296,
    }
    view = sheet(table([make.record("a", make.cell("swin_t", "softmax", make.costs), metrics)]))
    assert view.headers == ["backbone", "attention", "params_m", "gmacs", "images_per_s", "train_step_ms_p50",
                            "top1", "status"]  # fmt: skip
    assert view.rows == [["swin_t", "softmax", "28.29", "4.491", "1234", "12.35", "83.52 ± 0.83", "done"]]
    assert view.right == {2, 3, 4, 5, 6}


def test_slow_models_do_not_show_zero_images_per_second(make: Any) -> None:
    record = make.record("a", make.cell("swin_t", "softmax", make.speed()), {"images_per_s": 0.4321})
    assert column(sheet(table([record])), "images_per_s") == ["0.43"]


def test_the_breakdown_is_shown_on_request(make: Any) -> None:
    metrics = {"gmacs": 1.5, **dict.fromkeys(BREAKDOWN, 0.25)}
    frame = table([make.record("a", make.cell("swin_t", "softmax", make.costs), metrics)])
    assert not set(BREAKDOWN) & set(sheet(frame).headers)
    view = sheet(frame, labelled(frame, (*METRICS, *BREAKDOWN)))
    assert column(view, "gmacs_mlp") == ["0.250"]
    assert column(view, "top1") == ["-"]


def test_an_unknown_column_is_refused_with_the_near_ones(make: Any) -> None:
    frame = table([make.record("a", make.cell("swin_t", "softmax", make.costs), {"gmacs_mlp": 1.0})])
    with pytest.raises(ValueError, match="no column 'gmacs_mpl' in these records; near: gmacs_mlp"):
        labelled(frame, ["gmacs_mpl"])


def test_common_circumstances_are_a_note_and_differing_ones_a_column(make: Any) -> None:
    same = sheet(table(two(make, make.speed(), make.speed(), images_per_s=10.0)))
    assert "batch" not in same.headers
    assert same.notes == ["speed, all rows: device cpu, precision fp32, mode eager, channels_last False, batch 64."]
    frame = table(two(make, make.speed(batch=1), make.speed(batch=64), images_per_s=10.0))
    view = sheet(frame)
    assert column(view, "batch") == ["1", "64"]
    assert "Rows differ in batch (1, 64): their speeds are not comparable, and no row is ranked." in view.notes


@pytest.mark.parametrize(
    "change", [{"device": "cuda"}, {"precision": "bf16"}, {"mode": "compiled"}, {"runtime": "openvino"}], ids=str
)
def test_rows_of_differing_runtimes_are_warned_of(make: Any, change: dict[str, Any]) -> None:
    ((name, value),) = change.items()
    frame = table(two(make, make.speed(), make.speed(**change), images_per_s=10.0))
    assert value in column(sheet(frame), name)
    assert sum(line.startswith(f"Rows differ in {name} (") for line in notes(frame)) == 1


def test_a_runtime_is_a_column_beside_torch_and_its_version_where_that_tells_rows_apart(make: Any) -> None:
    torch, old, new = make.speed(), *(make.speed(runtime="openvino", version=version) for version in ("1.0", "2.0"))
    view = sheet(table(two(make, torch, new, images_per_s=10.0)))
    assert column(view, "runtime") == ["openvino", "torch"]
    assert "version" not in view.headers
    assert any(line.startswith("Rows differ in runtime (openvino, torch): their speeds") for line in view.notes)
    assert not any("version" in line for line in view.notes)
    view = sheet(table(two(make, old, new, images_per_s=10.0)))
    assert column(view, "version") == ["1.0", "2.0"]
    view = sheet(table(two(make, new, new, images_per_s=10.0)))
    assert not {"runtime", "version"} & set(view.headers)
    assert view.notes[0].endswith("batch 64, runtime openvino, version 2.0.")


def test_a_wrong_runtime_is_a_row_without_a_time_and_a_note(make: Any) -> None:
    wrong = "wrong: 4.8e-02 on zeros, from eager float32; allowed is 1.0e-04"
    cells = [make.cell("swin_t", "softmax", each) for each in (make.speed(), make.speed(runtime="openvino"))]
    metrics: list[dict[str, Any]] = [{"images_per_s": 10.0}, {"runtime_outputs": wrong}]
    found = zip("ab", cells, metrics, strict=True)
    view = sheet(table([make.record(*each) for each in found]))
    assert column(view, "images_per_s") == ["-", "10"]
    assert f"swin_t, softmax, in openvino, so without a time: {wrong}." in view.notes


def test_seeds_data_and_epochs_are_columns_where_they_differ(make: Any) -> None:
    frame = table(two(make, make.train(seed=0), make.train(seed=1), top1=80.0))
    assert column(sheet(frame), "seed") == ["0", "1"]
    assert "train, all rows: epochs 3, data fashion_mnist." in notes(frame)
    frame = table(two(make, make.train(), make.train(epochs=9, data="imagenet"), top1=80.0))
    assert column(sheet(frame), "epochs") == ["3", "9"]
    assert column(sheet(frame), "data") == ["fashion_mnist", "imagenet"]


def test_models_of_one_name_are_told_apart_by_what_differs(make: Any) -> None:
    records = [
        make.record(stages, make.cell("swin_t", "focused", make.costs, stages=stages, dim=96), {"gmacs": 4.5})
        for stages in ("LSSS", "LLSS")
    ]
    records.append(make.record("p", make.cell("pvt_t", "focused", make.costs, stages="LLLL"), {"gmacs": 2.0}))
    view = sheet(table(records))
    assert view.headers == ["backbone", "attention", "stages", "gmacs", "status"]
    assert column(view, "stages") == ["LLLL", "LLSS", "LSSS"]


def test_circumstances_of_one_short_name_keep_their_long_ones(make: Any) -> None:
    tasks = [{"name": "train", "seed": 0, "data": {"seed": 5}}, {"name": "train", "seed": 1, "data": {"seed": 6}}]
    view = sheet(table(two(make, *tasks, top1=80.0)))
    assert column(view, "train.seed") == ["0", "1"]
    assert column(view, "train.data.seed") == ["5", "6"]


@pytest.mark.parametrize(
    ("second", "warning"),
    [
        ({"commit": "f" * 40}, "commit (0123456789, ffffffffff)"),
        ({"torch": "2.15.0"}, "torch (2.11.0, 2.15.0)"),
        ({"threads": 8}, "threads (2, 8)"),
        ({"commit": None}, "commit (0123456789, none)"),
        ({"host": "b"}, None),
    ],
    ids=str,
)
def test_differing_environments_are_warned_of(make: Any, second: dict[str, Any], warning: str | None) -> None:
    first = {"commit": "0123456789" * 4, "torch": "2.11.0", "threads": 2, "host": "a", "date": "1"}
    records = [
        make.record(
            str(i), make.cell("swin_t", "softmax", make.speed(), dim=i), {"images_per_s": 1.0}, environment=environment
        )
        for i, environment in enumerate((first, {**first, "date": "2", **second}))
    ]
    lines = [line for line in notes(table(records)) if "environments" in line]
    assert lines == ([f"Measured under differing environments: {warning}."] if warning else [])


def test_code_is_compared_across_the_tasks_of_a_row_and_hardware_of_speeds_only(make: Any) -> None:
    cells = [make.cell("swin_t", "softmax", task) for task in (make.costs, make.speed())]
    records = [
        make.record(str(i), cell, environment={"commit": "ab"[i] * 40, "threads": i}) for i, cell in enumerate(cells)
    ]
    assert "Measured under differing environments: commit (aaaaaaaaaa, bbbbbbbbbb)." in notes(table(records))


@pytest.mark.parametrize("task", ["train", "evaluate"])
@pytest.mark.parametrize(("device", "warned"), [("cpu", True), ("cuda", False)])
def test_accuracies_of_a_cpu_depend_on_the_number_of_threads(make: Any, task: str, device: str, warned: bool) -> None:
    """It decides in which order numbers are summed; of what else they were measured with, they are independent."""
    work = make.train() if task == "train" else make.evaluate()
    records = [
        make.record(
            str(threads),
            make.cell("swin_t", "softmax", work, dim=threads),
            {"top1": 80.0, "n_images": 100},
            environment={"device": device, "threads": threads, "platform": f"{threads}"},
        )
        for threads in (1, 2)
    ]
    lines = [line for line in notes(table(records)) if "environments" in line]
    assert lines == (["Measured under differing environments: threads (1, 2)."] if warned else [])


def test_a_model_may_be_evaluated_with_another_number_of_threads_than_it_was_trained_with(make: Any) -> None:
    records = [
        make.record(
            str(threads), make.cell("swin_t", "softmax", task), {"top1": 80.0}, environment={"threads": threads}
        )
        for threads, task in ((2, make.train()), (1, make.evaluate()))
    ]
    assert not any("environments" in line for line in notes(table(records)))


def test_failures_name_the_task_and_the_reason(make: Any) -> None:
    cell = make.cell("swin_t", "softmax", make.speed(batch=4096))
    frame = table([make.record("a", cell, status="oom", error="Traceback:\n  ...\nOutOfMemoryError: 3 GiB")])
    view = sheet(frame)
    assert column(view, "status") == ["oom (speed)"]
    assert "swin_t, softmax: speed oom: OutOfMemoryError: 3 GiB" in view.notes


def printed(view: Sheet, width: int, terminal: bool) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    show(view, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(text, str)
    return text


VIEW = Sheet(["name", "gmacs"], [["a|b [red]", "4.5"], ["c", "10.25"]], frozenset({1}), ["first note", "second note"])


def test_plain_lines_align_numbers_right() -> None:
    assert to_plain(VIEW).splitlines() == [
        "name       gmacs",
        "a|b [red]    4.5",
        "c          10.25",
        "",
        "first note",
        "second note",
    ]


def test_markdown_is_a_table_with_escaped_bars_and_notes_as_paragraphs() -> None:
    assert to_markdown(VIEW).splitlines() == [
        "| name | gmacs |",
        "| --- | ---: |",
        "| a\\|b [red] | 4.5 |",
        "| c | 10.25 |",
        "",
        "first note",
        "",
        "second note",
    ]


def test_a_terminal_gets_a_frame_and_cells_are_not_markup() -> None:
    text = printed(VIEW, width=80, terminal=True)
    assert "│ a|b [red] │   4.5 │" in text
    assert "first note" in text


def test_elsewhere_the_plain_lines_are_neither_wrapped_nor_cut() -> None:
    assert printed(VIEW, width=12, terminal=False) == to_plain(VIEW)


def test_what_is_shortened_can_be_told_apart() -> None:
    names = ["focused(kernel_size=5)", "focused(kernel_size=None)", "linear"]
    lines = printed(Sheet(["attention", "top1"], [[n, "87.26"] for n in names], frozenset({1})), 24, True).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["focused(…_size=5)", "focused(…ze=None)", "linear"]
    assert max(map(len, lines)) <= 24


@pytest.mark.parametrize("render", [to_plain, to_markdown])
def test_an_empty_table_has_its_header(render: Any) -> None:
    headers: Sequence[str] = render(sheet(table([]))).splitlines()
    assert "backbone" in headers[0]


def test_attentions_are_named_by_the_options_in_which_they_differ(make: Any) -> None:
    texts = [
        "focused(focusing_factor=3, kernel_size=None)",
        "focused(focusing_factor=3, kernel_size=5)",
        "linear(feature_map='relu')",
        "plain",
        "not (readable",
    ]
    frame = table(
        [make.record(str(n), make.cell("swin_t", text, make.costs), {"params_m": 1.0}) for n, text in enumerate(texts)]
    )
    view = sheet(frame)
    shown = {row[1] for row in view.rows}
    assert shown == {"focused(kernel_size=None)", "focused(kernel_size=5)", "linear", "plain", "not (readable"}
    assert "focused, all rows: focusing_factor=3." in view.notes
    assert "linear, all rows: feature_map='relu'." in view.notes
    assert "focused(focusing_factor=3, kernel_size=None)" in to_csv(frame)


def test_small_numbers_keep_two_digits(make: Any) -> None:
    frame = table([make.record("a", make.cell("swin_t", "softmax", make.costs), {"gmacs": 0.008973})])
    assert sheet(frame).rows[0][2] == "0.0090"


def accuracies(make: Any) -> list[Any]:
    """A model trained here, and evaluated with weights from a file."""
    trained = {"top1": 79.0, "top1_stderr": 0.2, "top1_ema": 80.0, "n_images": 50_000}
    evaluated = {"top1": 81.234, "top1_stderr": 0.17, "top5": 95.5, "n_images": 50_000}
    return [
        make.record("t", make.cell("swin_t", "softmax", make.train()), trained),
        make.record("e", make.cell("swin_t", "softmax", make.evaluate()), evaluated),
    ]


def test_a_model_both_trained_and_evaluated_shows_both_accuracies(make: Any) -> None:
    view = sheet(table(accuracies(make)))
    assert view.headers == [
        "backbone", "attention", "evaluate_top1", "train_top1 (raw)", "train_top1 (EMA)", "status",
    ]  # fmt: skip
    assert view.rows == [["swin_t", "softmax", "81.23 ± 0.17", "79.00 ± 0.20", "80.00 ± 0.18", "done"]]
    assert view.right == {2, 3, 4}
    assert (
        "evaluate, all rows: weights swin_t.pth, digest digest of swin_t.pth, ema False, strict True, data imagenet, "
        "preprocessing short_side, crop_pct 0.875, interpolation bicubic."
    ) in view.notes
    assert "(raw): of the weights as trained, train_top1; (EMA): of their moving average, train_top1_ema." in view.notes


def test_asking_for_a_metric_of_two_tasks_shows_both(make: Any) -> None:
    frame = table(accuracies(make))
    assert sheet(frame, labelled(frame, ["top1"])).headers[2:4] == ["evaluate_top1", "train_top1 (raw)"]


def test_the_moving_average_is_shown_and_labelled_where_there_is_one(make: Any) -> None:
    metrics = {"top1": 79.0, "top1_stderr": 0.9, "top1_ema": 80.0, "n_images": 2000}
    record = make.record("t", make.cell("swin_t", "softmax", make.train()), metrics)
    view = sheet(table([record]))
    assert column(view, "top1 (raw)") == ["79.00 ± 0.90"]
    assert column(view, "top1 (EMA)") == ["80.00 ± 0.89"]
    without = sheet(table([make.record("t", record.cell, {**metrics, "top1_ema": None})]))
    assert "top1" in without.headers
    assert not any("raw" in text or "EMA" in text for text in (*without.headers, *without.notes))


def test_evaluations_are_told_apart_by_weights_and_preprocessing(make: Any) -> None:
    tasks = [make.evaluate(), make.evaluate(kind="squash"), make.evaluate("other.pth")]
    records = [
        make.record(str(n), make.cell("swin_t", "softmax", task), {"top1": 80.0}) for n, task in enumerate(tasks)
    ]
    view = sheet(table(records))
    assert sorted(zip(column(view, "weights"), column(view, "preprocessing"), strict=True)) == [
        ("other.pth", "short_side"), ("swin_t.pth", "short_side"), ("swin_t.pth", "squash"),
    ]  # fmt: skip
    assert not {"path", "digest"} & set(view.headers), "the name tells them apart already"


def test_an_evaluation_of_a_run_stands_beside_it_alone_and_without_it_says_which(make: Any) -> None:
    def record(key: str, task: Any, top1: float) -> Any:
        return make.record(key, make.cell("swin_t", "softmax", task), {"top1": top1, "n_images": 50_000})

    records = [record(f"t{seed}", make.train(seed=seed), 70.0 + seed) for seed in range(3)]
    records += [record(f"e{seed}", make.evaluate_run(f"t{seed}"), 80.0 + seed) for seed in range(2)]
    records.append(record("s1", make.evaluate_run("t1", kind="squash"), 90.0))
    view = sheet(table(records))
    found = zip(*(column(view, name) for name in ("seed", "train_top1", "evaluate_top1")), strict=True)
    assert [(seed, one[:5], two[:5]) for seed, one, two in found] == [
        ("0", "70.00", "80.00"), ("1", "71.00", "81.00"), ("1", "71.00", "90.00"), ("2", "72.00", "-"),
    ]  # fmt: skip
    assert not {"weights", "run", "label"} & set(view.headers), "the training says it"
    alone = sheet(table(records[3:]))
    assert column(alone, "weights") == ["run t0", "run t1", "run t1"]
    assert not {"run", "label"} & set(alone.headers), "the name tells them apart already"


def test_the_weights_of_all_evaluations_of_a_run_are_a_note(make: Any) -> None:
    records = [
        make.record(kind, make.cell("swin_t", "softmax", make.evaluate_run("t0", kind)), {"top1": 80.0})
        for kind in ("squash", "short_side")
    ]
    assert any("weights run t0, run t0, which last, ema False, strict True" in line for line in notes(table(records)))


def test_files_of_one_name_are_told_apart_by_their_content(make: Any) -> None:
    task = make.evaluate()
    other = {**task, "weights": {**task["weights"], "digest": "another"}}
    records = [
        make.record(digest, make.cell("swin_t", "softmax", each), {"top1": 80.0})
        for digest, each in (("a", task), ("b", other))
    ]
    assert sorted(column(sheet(table(records)), "digest")) == ["another", "digest of swin_t.pth"]


def test_a_starved_device_is_a_note(make: Any) -> None:
    records = [
        make.record(str(seed), make.cell("swin_t", "softmax", make.train(seed=seed)), {"data_wait_share": share})
        for seed, share in enumerate((0.09, 0.234))
    ]
    assert (
        "Trained on a starved device, so the speed is that of loading: "
        "waited 23 % of the time for images (swin_t, softmax, seed 1)."
    ) in notes(table(records))
    assert not any("starved" in line for line in notes(table(records[:1])))


WAITED = "threads waited 90 % of their time for a core"


def test_disturbed_times_are_marked_in_every_form(make: Any) -> None:
    speeds = {"images_per_s": 44.0, "latency_ms_p50": 1454.0, "train_images_per_s": 9.0, "train_step_ms_p50": 7111.0}
    quiet = {"infer_disturbed": None, "train_disturbed": None}
    records = [
        make.record("a", make.cell("swin_t", "softmax", make.speed()), speeds | quiet | {"infer_disturbed": WAITED}),
        make.record("b", make.cell("swin_t", "linear", make.speed()), speeds | quiet),
        make.record("c", make.cell("swin_t", "focused", make.speed()), speeds),  # of an earlier commit
    ]
    frame = table(records)
    shown = sheet(frame, labelled(frame, ["images_per_s", "latency_ms_p50", "train_images_per_s", "train_step_ms_p50"]))
    rows = {"linear": "44", "focused": "44", "softmax": "44 (disturbed)"}
    assert dict(zip(column(shown, "attention"), column(shown, "images_per_s"), strict=True)) == rows
    assert sorted(column(shown, "latency_ms_p50")) == ["1454.00", "1454.00", "1454.00 (disturbed)"]
    assert column(shown, "train_images_per_s") == ["9.0"] * 3
    assert column(shown, "train_step_ms_p50") == ["7111.00"] * 3
    said = "Speed of inference, disturbed by other work and not ranked: 1 of 3 rows (swin_t, softmax)."
    assert said in shown.notes
    assert shown.advice == ["attention-bench run --retry-disturbed measures again what was disturbed."]
    for text in (to_plain(shown), to_markdown(shown)):
        assert text.count("(disturbed)") == 2
    assert WAITED in to_csv(frame)
    assert not any("disturbed" in line for line in notes(table(records[1:])))


def test_disturbed_times_of_several_tasks_and_of_a_training(make: Any) -> None:
    """Names of metrics that two tasks have begin with the task."""
    other = {"name": "mine"}
    records = [
        make.record("a", make.cell("swin_t", "softmax", other), {"images_per_s": 1.0, "infer_disturbed": None}),
        make.record(
            "b",
            make.cell("swin_t", "softmax", make.speed()),
            {"images_per_s": 44.0, "train_images_per_s": 9.0, "infer_disturbed": WAITED},
        ),
        make.record(
            "c", make.cell("swin_t", "softmax", make.train()), {"loop_images_per_s": 5.0, "loop_disturbed": WAITED}
        ),
    ]
    frame = table(records)
    names = ["speed_images_per_s", "mine_images_per_s", "train_images_per_s", "loop_images_per_s"]
    shown = sheet(frame, labelled(frame, names))
    assert column(shown, "speed_images_per_s") == ["44 (disturbed)"]
    assert column(shown, "mine_images_per_s") == ["1.0"]
    assert column(shown, "train_images_per_s") == ["9.0"]
    assert column(shown, "loop_images_per_s") == ["5.0 (disturbed)"]
    assert (
        "Speed of training, disturbed by other work and not ranked: 1 of 1 row (swin_t, softmax, seed 0)."
        in shown.notes
    )


def test_of_many_disturbed_rows_a_few_are_named(make: Any) -> None:
    records = [
        make.record(
            f"k{n}", make.cell("swin_t", f"mine{n}", make.speed()), {"images_per_s": 1.0, "infer_disturbed": WAITED}
        )
        for n in range(40)
    ]
    (said,) = [line for line in notes(table(records)) if "disturbed" in line]
    assert said == (
        "Speed of inference, disturbed by other work and not ranked: "
        "40 of 40 rows (swin_t, mine0; swin_t, mine1; swin_t, mine2 and 37 more)."
    )


def test_attention_that_was_not_fused_is_a_note(make: Any) -> None:
    def lines(**kernels: str | None) -> list[str]:
        records = [
            make.record("a", make.cell("swin_t", "softmax", make.speed()), {"images_per_s": 1.0, **kernels}),
            make.record("b", make.cell("deit_t", "linear", make.speed()), {"images_per_s": 1.0}),
        ]
        return [line for line in notes(table(records)) if "fused" in line]

    assert lines() == []
    assert lines(sdpa_kernel="flash", train_sdpa_kernel=None) == []
    assert lines(sdpa_kernel="flash", train_sdpa_kernel="math") == [
        "In a training step, scaled_dot_product_attention was not fused everywhere; its kernels were "
        "math (swin_t, softmax)."
    ]
    assert lines(loop_sdpa_kernel="flash, math")[0].startswith("In training, ")


def test_a_kernel_is_a_column_on_request(make: Any) -> None:
    records = [
        make.record(key, make.cell(backbone, "softmax", make.speed()), {"images_per_s": 1.0, "sdpa_kernel": kernel})
        for key, backbone, kernel in (("a", "swin_t", "flash"), ("b", "deit_t", None))
    ]
    frame = table(records)
    assert column(sheet(frame, labelled(frame, ["images_per_s", "sdpa_kernel"])), "sdpa_kernel") == ["-", "flash"]


def test_steps_that_were_not_finite_are_a_note(make: Any) -> None:
    def lines(*counts: int | None) -> list[str]:
        records = [
            make.record(str(seed), make.cell("swin_t", "softmax", make.train(seed=seed)), {"nonfinite_steps": count})
            for seed, count in enumerate(counts)
        ]
        return [line for line in notes(table(records)) if "not finite" in line]

    assert lines(0, None) == []
    assert lines(0, 3) == ["Gradients were not finite in 3 steps (swin_t, softmax, seed 1)."]
    assert lines(*range(1, 7)) == [
        "Gradients were not finite in 1 step (swin_t, softmax, seed 0), 2 steps (swin_t, softmax, seed 1), "
        "3 steps (swin_t, softmax, seed 2) and 3 more."
    ]


def test_weights_that_fit_in_part_are_a_note(make: Any) -> None:
    def lines(missing: int, reshaped: int) -> list[str]:
        metrics = {"top1": 80.0, "weights_missing": missing, "weights_reshaped": reshaped}
        record = make.record("e", make.cell("swin_t", "softmax", make.evaluate()), metrics)
        return [line for line in notes(table([record])) if "in part" in line]

    assert lines(0, 0) == []
    said = "Evaluated with weights that fit only in part: 3 tensors as initialised (swin_t, softmax)."
    assert lines(2, 1) == [said]


def test_the_accuracy_of_an_untrained_head_has_a_warning_in_its_row(make: Any) -> None:
    def record(attention: str, missing: int, trained: bool) -> Record:
        metrics = {"top1": 0.1, "weights_missing": missing, "weights_reshaped": 0, "head_trained": trained}
        return make.record(attention, make.cell("swin_t", attention, make.evaluate()), metrics)

    frame = table([record("focused", 2, False), record("linear", 1, True), record("softmax", 0, True)])
    warnings = ["untrained head: 2 tensors as initialised", "1 tensor as initialised", None]
    assert frame["warning"].dropna().tolist() == warnings[:2]
    shown = sheet(frame)
    assert column(shown, "warning") == [*warnings[:2], "-"]
    assert to_csv(frame).splitlines()[1].count("untrained head") == 1
    assert "warning" not in table([record("softmax", 0, True)])


def test_a_file_of_weights_is_named_by_its_path_where_the_cell_has_no_name(make: Any) -> None:
    task = make.evaluate(weights={"digest": "d", "ema": True, "strict": True, "path": "/data/weights/swin.pth"})
    frame = table([make.record("e", make.cell("swin_t", "softmax", task), {"top1": 80.0})])
    assert any("weights swin.pth, digest d, ema True, strict True" in line for line in notes(frame))


def test_a_note_stays_while_a_row_refers_to_it() -> None:
    long = "a reason that is longer than a cell may be"
    view = Sheet(["name", "reason"], [["a", long], ["b", "short"]], notes=["first note"], asides=frozenset({"reason"}))
    assert [line[:3] for line in fitted(view, 20).notes] == ["fir", "(1)"]
    narrow = fitted(view, 4)
    assert narrow.headers == ["name"]
    assert [line[:3] for line in narrow.notes] == ["fir", "Lef"]
