"""Groups: images that are explained together, as many as share a batch, and their sheets."""

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from cnnvis_ray.explanation.aims import Aimed, Aims, name_of
from cnnvis_ray.explanation.heat import shrink
from cnnvis_ray.explanation.image_sheets import draw_grid, draw_occluded, draw_overview, stack
from cnnvis_ray.explanation.methods import METHODS, Question
from cnnvis_ray.explanation.occlusion import areas, fill_colour, squares
from cnnvis_ray.explanation.tasks import ExplanationSetup, Wanted
from cnnvis_ray.network import activations, top_predictions

Row = dict[str, object]
Picture = tuple[str, Image.Image]
"""A sheet and its path in the run."""


class Shown:
    """Images and the network's channels.

    Attributes:
        batch: the network's input, padded to the batch size, so that company changes nothing.
    """

    def __init__(
        self,
        setup: ExplanationSetup,
        module: nn.Module,
        images: Sequence[Wanted],
        pixels: NDArray[np.uint8],
        device: str,
    ) -> None:
        self.setup = setup
        self.module = module
        self.images = images
        self.pixels = pixels
        laid = np.zeros((setup.explain.batch_size, *pixels.shape[1:]), np.uint8)
        laid[: len(pixels)] = pixels
        self.batch = setup.network.preprocess.normalize(laid, device)

    def grids(self, position: int) -> list[Image.Image]:
        """Draw the channels of each asked layer for one image."""
        kept = activations(self.module, self.setup.shown, self.batch[position : position + 1])
        maps = {name: one[0].float().cpu().numpy() for name, one in kept.items()}
        drawn = [draw_grid(name, values, self.setup.explain) for name, values in maps.items()]
        return [grid for grid in drawn if grid is not None]

    def sheets(self) -> Iterator[Picture]:
        """Draw sheets without heat maps, where the network has no head to aim at."""
        for position, image in enumerate(self.images):
            if image.sheet:
                notes = ["no heat maps: the weights hold no head", *label_note(image)]
                overview = draw_overview(image.key, notes, self.pixels[position], {}, {})
                yield f"{sheet_path(image)}.png", stack([overview, *self.grids(position)])


class Group:
    """Images with the heat maps of every method."""

    def __init__(self, shown: Shown, aimed: Aimed) -> None:
        self.shown = shown
        self.setup = shown.setup
        self.explain = shown.setup.explain
        self.images = shown.images
        self.pixels = shown.pixels
        self.aimed = aimed
        asked = None if self.explain.target == "predicted" else self.explain.target
        self.aims: Aims = aimed.aim(shown.batch, asked)
        question = Question(
            aimed,
            shown.pixels,
            shown.batch,
            self.aims,
            self.setup.network.preprocess,
            self.explain,
            shown.module.get_submodule(self.setup.cam_layer),
            self.setup.grid,
        )
        answers = {method: METHODS[method].explain(question) for method in self.setup.methods}
        size = self.explain.map_size
        self.heats = {
            method: [shrink(one, size) for one in answer.heat]
            for method, answer in answers.items()
        }
        self.evidence = {
            method: [
                METHODS[method].evidence(heat, answer, position)
                for position, heat in enumerate(self.heats[method])
            ]
            for method, answer in answers.items()
        }
        squared = (answer.scores for answer in answers.values() if answer.scores is not None)
        self.scores = next(squared, None)  # under occlusion, image square

    def rows(self) -> Iterator[Row]:
        """Yield a row per image and method, and one of random order where there are curves."""
        for position, image in enumerate(self.images):
            for method in self.setup.methods:
                heat = self.heats[method][position]
                flat = np.ascontiguousarray(heat.map.ravel().astype(np.float16))
                measured = self.curves(image, position, heat.map)
                yield {
                    **self.about(position),
                    "method": method,
                    "low": heat.low,
                    "high": heat.high,
                    "map": flat,
                    **measured,
                }
            if image.curves and self.setup.kind != "numbers":
                random = np.random.default_rng((self.setup.seed, image.image_id))
                noise = random.random((self.explain.map_size, self.explain.map_size))
                yield {
                    **self.about(position),
                    "method": "random",
                    **self.curves(image, position, noise),
                }

    def about(self, position: int) -> Row:
        """Return which image and what of it is explained, as columns."""
        index = int(self.aims.index[position])
        return {
            "image_id": self.images[position].image_id,
            "key": self.images[position].key,
            "target": index,
            "name": self.name(index),
            "score": float(self.aims.score[position]),
        }

    def name(self, index: int) -> str:
        """Return the name of a target."""
        return name_of(index, self.aimed.kind, self.setup.network.categories)

    def curves(self, image: Wanted, position: int, heat: NDArray[np.floating]) -> Row:
        """Measure deletion and insertion where asked; a plain number has no scale for them."""
        if not image.curves or self.setup.kind == "numbers":
            return {}
        own = self.aims.of(torch.tensor([position], device=self.aims.index.device))
        deletion, insertion = areas(
            self.aimed,
            self.pixels[position],
            heat,
            own,
            self.setup.network.preprocess,
            self.explain.batch_size,
        )
        return {"deletion": deletion, "insertion": insertion}

    def sheets(self) -> Iterator[Picture]:
        """Draw the sheets of the images that get one."""
        for position, image in enumerate(self.images):
            if not image.sheet:
                continue
            path = sheet_path(image)
            yield f"{path}.png", self.sheet(position)
            if self.scores is not None:
                yield f"{path}-occluded.png", self.occluded(position, self.scores[position])

    def sheet(self, position: int) -> Image.Image:
        """Draw one image's sheet."""
        heats = {method: maps[position] for method, maps in self.heats.items()}
        evidence = {method: found[position] for method, found in self.evidence.items()}
        title, notes = self.images[position].key, self.notes(position)
        overview = draw_overview(title, notes, self.pixels[position], heats, evidence)
        return stack([overview, *self.shown.grids(position)])

    def notes(self, position: int) -> list[str]:
        """Return what the network calls an image and what is explained, in words."""
        index = int(self.aims.index[position])
        aim = f"explained: {self.name(index)}, score {float(self.aims.score[position]):.3f}"
        categories = self.setup.network.categories
        if categories is None or self.aimed.kind != "classes":
            return [aim, *label_note(self.images[position])]
        with torch.inference_mode():
            output = self.aimed.output(self.shown.batch)[position : position + 1]
        guesses = top_predictions(output, categories)[0]
        named = ", ".join(f"{name} {probability:.3f}" for _, name, probability in guesses)
        told = [f"top {len(guesses)}: {named}", *label_note(self.images[position])]
        return ["; ".join(told), aim]

    def occluded(self, position: int, scores: NDArray[np.float64]) -> Image.Image:
        """Draw the sheet of occluded images."""
        explain, preprocess = self.explain, self.setup.network.preprocess
        name = self.name(int(self.aims.index[position]))
        return draw_occluded(
            f"{self.images[position].key}: {name} under occlusion",
            self.pixels[position],
            scores,
            squares(preprocess.crop, explain.patch, explain.stride),
            explain.patch,
            fill_colour(explain.fill, preprocess.channels),
        )


def label_note(image: Wanted) -> list[str]:
    """Return the image's label in words, if it has one."""
    return [] if image.label is None else [f"labelled: {image.label}"]


def sheet_path(image: Wanted) -> str:
    """Name an image's files: its id, and of its key what every file system takes."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", PurePosixPath(image.key).stem)[:60]
    return f"explanation/images/{image.image_id:012d}-{stem}"
