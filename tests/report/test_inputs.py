"""Which layers chain directly: through pooling, joined branches and a bottleneck, and not else."""

import numpy as np
import torch
from torch import Tensor, nn

from cnnvis_ray.stages.inputs import chain


class Fire(nn.Module):
    """A bottleneck and two joined branches."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(4, 2, 1)
        self.one = nn.Conv2d(2, 3, 1)
        self.three = nn.Conv2d(2, 3, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, image: Tensor) -> Tensor:
        """Join the branches."""
        thin = self.relu(self.squeeze(image))
        return torch.cat([self.relu(self.one(thin)), self.relu(self.three(thin))], 1)


class Residual(nn.Module):
    """A convolution beside its input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Add the input."""
        added: Tensor = image + self.conv(image)
        return added


def make_network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), Fire(), Residual(), Residual()
    ).eval()


def test_kernels_are_those_between_two_shown_layers() -> None:
    network = make_network()
    found = chain(network, (1, 3, 12, 12), {"0", "3", "4", "5", "5.conv"})
    assert {layer: before for layer, (before, _) in found.items()} == {"3": "0", "5.conv": "4"}
    fire = network[3]
    assert isinstance(fire, Fire)
    kernels = torch.cat([fire.one.weight.expand(3, 2, 3, 3) * 0, fire.three.weight])
    kernels[:3, :, 1, 1] = fire.one.weight[:, :, 0, 0]
    mixed = torch.einsum("omyx,mi->oiyx", kernels, fire.squeeze.weight[:, :, 0, 0])
    expected = mixed.square().sum((2, 3)).sqrt().detach().numpy()
    np.testing.assert_allclose(found["3"][1], expected, rtol=1e-5)


def test_the_nearest_shown_layer_feeds_another() -> None:
    found = chain(make_network(), (1, 3, 12, 12), {"0", "2", "3.squeeze"})
    assert found["3.squeeze"][0] == "2"
    assert set(found) == {"3.squeeze"}


def test_no_hook_stays() -> None:
    network = make_network()
    chain(network, (1, 3, 12, 12), {"0", "3"})
    assert not any(module._forward_hooks for module in network.modules())
