"""Two networks that no library publishes, for journey.py: a U-Net and a control network.

Replace them with your own; ``network.name`` takes ``module:factory``.
"""

import torch
from torch import Tensor, nn

from cnnvis_ray.network import Preprocess

WIDTHS = (16, 32, 64)
CLASSES = 21


def block(before: int, after: int) -> nn.Sequential:
    """Two convolutions of 3 x 3, each with a ReLU."""
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(after, after, 3, padding=1),
        nn.ReLU(inplace=True),
    )


class UNet(nn.Module):
    """Down twice and up twice, each time joined with what came before: a class per pixel.

    References:
        Ronneberger et al. 2015, U-Net, arXiv:1505.04597.
    """

    def __init__(self) -> None:
        super().__init__()
        self.preprocess = Preprocess(256, 224, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        first, second, third = WIDTHS
        self.down1, self.down2 = block(3, first), block(first, second)
        self.bottom = block(second, third)
        self.pool = nn.MaxPool2d(2)
        self.up2 = nn.ConvTranspose2d(third, second, 2, stride=2)
        self.up1 = nn.ConvTranspose2d(second, first, 2, stride=2)
        self.join2, self.join1 = block(2 * second, second), block(2 * first, first)
        self.head = nn.Conv2d(first, CLASSES, 1)

    def forward(self, batch: Tensor) -> Tensor:
        """Return a score per class and pixel, ``[batch, class, height, width]``."""
        first = self.down1(batch)
        second = self.down2(self.pool(first))
        raised = self.up2(self.bottom(self.pool(second)))
        raised = self.up1(self.join2(torch.cat([second, raised], 1)))
        scores: Tensor = self.head(self.join1(torch.cat([first, raised], 1)))
        return scores


class Control(nn.Module):
    """A camera's image to one steering angle: five convolutions, three linear layers.

    References:
        Bojarski et al. 2016, End to End Learning for Self-Driving Cars, arXiv:1604.07316.
    """

    def __init__(self) -> None:
        super().__init__()
        self.preprocess = Preprocess(112, 112, 3, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        layers: list[nn.Module] = []
        sizes = ((3, 24, 5, 2), (24, 36, 5, 2), (36, 48, 5, 2), (48, 64, 3, 1), (64, 64, 3, 1))
        for before, after, kernel, stride in sizes:
            layers += [nn.Conv2d(before, after, kernel, stride), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(1024, 100),
            nn.ReLU(),
            nn.Linear(100, 1),
        )

    def forward(self, batch: Tensor) -> Tensor:
        """Return the angle, ``[batch, 1]``."""
        angle: Tensor = self.head(self.features(batch))
        return angle


def unet() -> nn.Module:
    """Build the U-Net."""
    return UNet()


def control() -> nn.Module:
    """Build the control network."""
    return Control()
