"""Whole models in half precision: they train."""

import pytest
import torch

import backbones

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
FAMILIES = ("deit_micro", "pvt_micro", "pvt_v2_micro", "swin_micro", "cswin_micro")


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("attention", ["focused(focusing_factor=32)", "agent", "inline", "polaformer", "nystromformer"])
@pytest.mark.parametrize("name", FAMILIES)
def test_whole_models_train_with_finite_loss_and_gradients(name, attention, precision):
    spec = backbones.preset(name, attention=attention)
    model = backbones.build(spec).train()
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(8, spec.in_channels, *spec.image_size, generator=generator)
    labels = torch.randint(spec.num_classes, (8,), generator=generator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        with torch.autocast("cpu", DTYPES[precision]):
            logits = model(images)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        loss.backward()
        gradients = [p.grad for name, p in model.named_parameters() if name not in getattr(model, "never_used", ())]
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[0]
