import pytest
import torch


@pytest.fixture(autouse=True)
def _fresh_generator() -> None:
    torch.manual_seed(0)
