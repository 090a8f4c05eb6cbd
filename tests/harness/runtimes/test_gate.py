"""The gate before the clock: planted wrong runtimes, a stale export, and what counts as right."""

import shutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from harness.runtimes.exports import exported
from harness.runtimes.gate import Agreement, agreement
from harness.runtimes.sessions import Deployed, open_session
from tests.harness.runtimes.common import attention, scale

ONE = attention("softmax")


def eager(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out: Tensor = ONE.module(q, k, v)
    return out


def changed(how: Callable[[Tensor, Tensor], Tensor]) -> Agreement:
    """What the gate says of a runtime whose outputs are changed, given q."""
    return agreement(eager, lambda q, k, v: how(eager(q, k, v), q), ONE.args)


def test_what_is_right() -> None:
    found = changed(lambda out, q: out * (1 + 1e-5))
    assert found.right
    assert found.differences.keys() == {"normal inputs", "zeros", "inputs scaled by 10"}
    assert str(found) == "right: 1.0e-05"
    assert found.plain()["right"]


WRONG: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], str]] = {
    "scaled by 1.01": (lambda out, q: out * 1.01, "wrong: 1.0e-02 on "),
    "on zeros alone": (lambda out, q: out + 0.1 * (not q.any()), "on zeros"),
    "on large inputs alone": (lambda out, q: out * (1.01 if q.abs().max() > 10 else 1), "on inputs scaled by 10"),
    "not a number": (lambda out, q: out * float("nan"), "wrong: inf on normal inputs"),
    "a shape": (lambda out, q: out[:1], "wrong: inf on normal inputs"),
    "nothing": (lambda out, q: 0 * out, "wrong: 1.0e+00 on normal inputs"),
}


@pytest.mark.parametrize("planted", WRONG)
def test_a_planted_wrong_runtime_is_caught(planted: str) -> None:
    how, said = WRONG[planted]
    found = changed(how)
    assert not found.right
    assert said in str(found)
    assert found.plain()["right"] is False


def test_what_eager_itself_has_no_number_for_is_no_fault() -> None:
    def inverse(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return 1 / q

    assert agreement(inverse, inverse, ONE.args).right
    assert not agreement(inverse, lambda q, k, v: (1 / q).nan_to_num(), ONE.args).right


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime", "openvino"])
def test_a_real_runtime_that_is_wrong_and_one_that_is_right(runtime: str) -> None:
    """The graph of a module whose outputs are those of the other, scaled by 1.01."""
    one, other = scale(1.0), scale(1.01)
    wrong = Deployed(other, runtime)
    assert not agreement(one.module, wrong, one.args).right
    assert agreement(other.module, wrong, one.args).right


def test_a_stale_export_is_caught() -> None:
    old, new = attention("focused", seed=0), attention("focused", seed=1)
    stale, export = exported(old, "onnx"), exported(new, "onnx")
    assert stale.file != export.file
    assert agreement(new.module, open_session(export), new.args).right
    # A cache that has the graph of other weights in the place of these.
    shutil.copy(stale.file, export.file)
    found = agreement(new.module, Deployed(new, "onnxruntime"), new.args)
    assert not found.right
    assert found.worst > 1e-2


def test_inputs_that_are_no_fractions_stay_as_they_are() -> None:
    seen: list[Tensor] = []

    def look(x: Tensor, which: Tensor, *, rest: None) -> Tensor:
        seen.append(which)
        return x

    which = torch.arange(3)
    assert agreement(look, look, (torch.ones(3), which), {"rest": None}).right
    assert all(torch.equal(each, which) for each in seen)
