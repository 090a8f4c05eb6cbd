import os

# Before torch: models here are so small that a second thread costs more than it gives, and tests run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch


@pytest.fixture(autouse=True)
def _fresh_generator() -> None:
    torch.manual_seed(0)
