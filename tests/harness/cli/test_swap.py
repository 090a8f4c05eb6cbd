"""The command swap: the table, the weights that it leaves, and what it refuses in one line."""

from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

from backbones.swap import swap
from tests.harness.command_line import Ask, refused

SMALL = "img_size=32 patch_size=8 depth=2 num_classes=5"
ARGUMENTS = {"img_size": 32, "patch_size": 8, "depth": 2, "num_classes": 5}
MODEL = "vit_tiny_patch16_224"


def small(**changes: int) -> torch.nn.Module:
    return timm.create_model(MODEL, **(ARGUMENTS | changes)).eval()


def test_the_table_has_the_model_before_and_after(ask: Ask) -> None:
    answer = ask(f"swap {MODEL} --attention linear --set {SMALL}")
    assert answer.status == 0
    assert answer.err == ""
    header, before, after, _, *notes = answer.out.splitlines()
    assert header.split()[-3:] == ["params", "(M)", "GMACs"]
    assert before.split()[:4] == ["before", "1-2", "softmax", "4x4+1"]
    assert after.split()[:2] == ["after", "1-2"]
    params = sum(parameter.numel() for parameter in small().parameters())
    assert f"{params / 1e6:.3f}" in before
    assert notes[0].startswith(f"{MODEL}: 3x32x32 -> 5 classes.")
    assert not list(Path().glob("*.pth"))


def test_fewer_multiply_adds_on_a_large_map(ask: Ask) -> None:
    answer = ask(f"swap {MODEL} --attention linear --set depth=2")
    before, after = (float(line.split()[-1]) for line in answer.out.splitlines()[1:3])
    # Two blocks: 2 N N C each for softmax, 2 N C d + N C for linear attention.
    n, c, d = 14 * 14 + 1, 192, 64
    assert before - after == pytest.approx(2 * (2 * n * n * c - 2 * n * c * d - n * c) / 1e9, abs=2e-4)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_go_in_and_come_out_with_the_attention_in_place(ask: Ask, suffix: str) -> None:
    source = small()
    save = safetensors.torch.save_file if suffix == "safetensors" else torch.save
    save(source.state_dict(), f"timm.{suffix}")
    answer = ask(
        f"swap {MODEL} --attention 'softmax(fused=False)' --checkpoint timm.{suffix} --out out.pth --set {SMALL}"
    )
    assert answer.status == 0
    assert answer.err == "weights: every tensor fits\nwrote out.pth\n"
    content = torch.load("out.pth", weights_only=True)
    assert content["attention"] == "softmax(fused=False)"
    assert content["arguments"] == ARGUMENTS
    changed = swap(small(), content["attention"])
    changed.load_state_dict(content["model"])
    images = torch.randn(2, 3, 32, 32)
    assert torch.allclose(changed.eval()(images), source(images), atol=1e-5)


def test_position_embeddings_are_resized_and_other_classes_are_partial(ask: Ask) -> None:
    torch.save(small(num_classes=7).state_dict(), "seven.pth")
    larger = SMALL.replace("img_size=32", "img_size=48")
    line = f"swap {MODEL} --attention focused --first 1 --checkpoint seven.pth --set {larger} --out out.pth"
    assert "2 of another shape (head.weight (7, 192) for (5, 192)" in refused(ask, line)
    answer = ask(f"{line} --allow-partial-weights")
    assert answer.status == 0
    assert answer.err.startswith("weights: 2 of another shape")
    state = torch.load("out.pth", weights_only=True)["model"]
    assert state["pos_embed"].shape == (1, 1 + 6 * 6, 192)
    assert any(name.startswith("blocks.0.attn.core.") for name in state)
    assert not any(name.startswith("blocks.1.attn.core.") for name in state)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("swap vit_tiny_patch17 --attention linear", "has no model 'vit_tiny_patch17'; did you mean vit_tiny_patch16_"),
        ("swap '' --attention linear", "has no model ''; timm.list_models('vit*') lists some that it has"),
        ("swap resnet18 --attention linear", "ResNet is not a timm VisionTransformer"),
        (f"swap {MODEL} --attention linaer", "unknown attention 'linaer'; did you mean linear"),
        (f"swap {MODEL} --attention linear --set foo=3", "unexpected keyword argument 'foo'"),
        (f"swap {MODEL} --attention linear --set foo", "cannot read --set 'foo'"),
        (
            f"swap {MODEL} --attention linear --set pretrained=True",
            "--set pretrained: weights are given by --checkpoint",
        ),
        (
            f"swap {MODEL} --attention linear --set checkpoint_path=x.pth",
            "weights are given by --checkpoint, and nothing",
        ),
        (f"swap {MODEL} --attention linear --first 13", "first=13 is not allowed; it takes a number from 1 to 12"),
        (f"swap {MODEL} --attention linear --set attn_drop_rate=0.1", "attn_drop_rate=0.1"),
        (f"swap {MODEL} --attention linear --ema", "--ema has no effect without --checkpoint"),
        (f"swap {MODEL} --attention linear --checkpoint no.pth", "cannot read the weights no.pth"),
        (f"swap {MODEL} --attention linear --checkpoint my_sweeps.py", "damaged, or not a file of torch.save"),
        (f"swap {MODEL} --attention linear --first 0", "first=0 is not allowed; it takes a number from 1 to 12"),
        (
            f"swap {MODEL} --attention linear --out my_sweeps.py",
            "my_sweeps.py exists: move it away, or give",
        ),
        (f"swap {MODEL} --attention linear --out no/out.pth --set {SMALL}", "cannot write no/out.pth"),
    ],
)
def test_bad_input_is_one_clear_line(ask: Ask, line: str, said: str) -> None:
    assert said in refused(ask, line)


def test_weights_of_another_model_are_refused(ask: Ask) -> None:
    torch.save(timm.create_model("test_resnet").state_dict(), "resnet.pth")
    assert "does not fit" in refused(ask, f"swap {MODEL} --attention linear --checkpoint resnet.pth --set {SMALL}")
