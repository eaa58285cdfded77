"""A start imports torchvision without torch's compiler."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys
import cnnvis_ray.network
assert "torchvision.models" in sys.modules
assert not any(name.startswith("torch._dynamo") for name in sys.modules)
import torch
from torchvision.ops import roi_align
assert roi_align(torch.ones(1, 1, 8, 8), torch.tensor([[0.0, 0, 0, 4, 4]]), 2).sum() == 4
"""


@pytest.mark.slow
def test_torchvision_comes_without_the_compiler_and_works() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)
