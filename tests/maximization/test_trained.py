"""Networks trained on digits: other activations, grey input, a head, a fixed input size."""

import numpy as np
import pytest
import torch
from torch import nn

from cnnvis_ray.config import Maximize
from cnnvis_ray.maximization import Evidence, StartImage, check_recipe
from cnnvis_ray.network.digits import fitted_digits
from tests.maximization.small_networks import Draw, find_layer, setting_of

SIDE = 16


def build(activation: type[nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in ((1, 12), (12, 24)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), activation()]
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(24 * (SIDE // 4) ** 2, 10))


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = fitted_digits()
    return nn.functional.interpolate(images, size=SIDE, mode="area"), labels


def train(module: nn.Sequential, digits: tuple[torch.Tensor, torch.Tensor]) -> nn.Sequential:
    images, labels = digits
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(module.parameters(), 4e-3)
    module.train()
    for _ in range(2):
        for chosen in torch.split(torch.randperm(len(images)), 64):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(module(images[chosen]), labels[chosen])
            torch.autograd.backward(loss)
            optimizer.step()
    return module.eval().requires_grad_(False)


@pytest.mark.parametrize("activation", [nn.ReLU6, nn.SiLU])
def test_every_channel_that_digits_excite_comes_out_live_and_higher(
    activation: type[nn.Module], digits: tuple[torch.Tensor, torch.Tensor], draw: Draw
) -> None:
    torch.manual_seed(1)
    module = train(build(activation), digits)
    with torch.no_grad():
        maps = module[:7]((digits[0] * 0.33 + 0.31 - 0.45) / 0.25)  # as the pictures are shown
    means, excited = maps.mean((2, 3)), maps.amax((0, 2, 3)).numpy() > 0
    best = means.amax(0).numpy()

    def start_image(channel: int) -> StartImage:
        key = int(means[:, channel].argmax())
        grey = (digits[0][key, 0] * 0.33 + 0.31).clamp(0, 1) * 255
        return StartImage(str(key), grey.byte()[..., None].expand(-1, -1, 3).numpy())

    evidence = Evidence(best, excited, start_image)
    pictures = draw(
        module, "6", list(range(24)), SIDE, 1, evidence, batch_size=8, steps=48, attempts=2
    )
    for picture in pictures:
        if excited[picture.channel]:
            assert picture.status == "live" or "not above noise" in picture.note
            assert picture.activation > best[picture.channel]
        assert picture.pixels.shape == (SIDE, SIDE, 3)
        assert (np.ptp(picture.pixels, axis=2) == 0).all()
    live = sum(picture.status == "live" for picture in pictures if excited[picture.channel])
    assert live >= excited.sum() - 2  # an edge may like noise of full contrast more


def test_class_pictures_are_recognized_by_another_network(
    digits: tuple[torch.Tensor, torch.Tensor], draw: Draw
) -> None:
    readers = []
    for seed in (2, 3):
        torch.manual_seed(seed)
        readers.append(train(build(nn.ReLU), digits))
    pictures = draw(
        readers[0], "9", list(range(10)), SIDE, 1, objective="class", batch_size=10, steps=48
    )
    images = torch.from_numpy(np.stack([picture.pixels[..., :1] for picture in pictures]))
    answers = readers[1]((images.permute(0, 3, 1, 2) / 255 - 0.45) / 0.25).argmax(1)
    assert float((answers == torch.arange(10)).float().mean()) > 0.5


def test_a_head_that_takes_one_size_only(draw: Draw) -> None:
    module = build(nn.ReLU).eval()
    layer = find_layer(module, "9", SIDE, 1)
    recipe = Maximize(objective="class", size=SIDE)
    assert check_recipe(module, layer, recipe, setting_of(SIDE, 1)) == list(range(10))
