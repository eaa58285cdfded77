"""Groups: images that are explained together, as many as share a batch, and their sheets."""

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cnnvis_ray.explanation.aims import Aimed, Aims, name_of
from cnnvis_ray.explanation.heat import shrink
from cnnvis_ray.explanation.image_sheets import Mask, draw_grid, draw_occluded, draw_overview
from cnnvis_ray.explanation.methods import METHODS, Question
from cnnvis_ray.explanation.occlusion import areas, fill_colour, squares, step_of
from cnnvis_ray.explanation.tasks import ExplanationSetup, Wanted
from cnnvis_ray.network import activations, top_predictions, wordnet_ids
from cnnvis_ray.pictures import Sheet, stack

Row = dict[str, object]
Picture = tuple[str, Sheet]
"""A sheet and its path in the run, without suffix."""


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

    def sheet(self, position: int, overview: Sheet, beside: bool) -> Sheet:
        """Put the channels of each asked layer below an image's overview, or beside it."""
        kept = activations(self.module, self.setup.shown, self.batch[position : position + 1])
        grids = []
        for layer in self.setup.shown:
            name = f"{layer.name} ({layer.aliases[0]})" if layer.aliases else layer.name
            maps = kept[layer.name][0].float().cpu().numpy()
            grid = draw_grid(name, maps, self.setup.explain, self.setup.look)
            grids += [] if grid is None else [grid]
        return stack([overview, stack(grids)], across=beside) if grids else overview

    def sheets(self) -> Iterator[Picture]:
        """Draw sheets without heat maps, where the network has no head to aim at."""
        for position, image in enumerate(self.images):
            if image.sheet:
                notes = ["no heat maps: the weights hold no head", *label_note(image)]
                overview = draw_overview(
                    image.key, notes, self.pixels[position], {}, {}, self.setup.look, image.label
                )
                yield sheet_path(image), self.sheet(position, overview, beside=True)


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
            yield sheet_path(image), self.sheet(position)
            if self.scores is not None:
                occluded = self.occluded(position, self.scores[position])
                yield f"{sheet_path(image)}-occluded", occluded

    def sheet(self, position: int) -> Sheet:
        """Draw one image's sheet."""
        heats = {method: maps[position] for method, maps in self.heats.items()}
        evidence = {method: found[position] for method, found in self.evidence.items()}
        image, mask = self.images[position], self.mask(position)
        overview = draw_overview(
            image.key,
            self.notes(position),
            self.pixels[position],
            heats,
            evidence,
            self.setup.look,
            image.label,
            mask,
        )
        return self.shown.sheet(position, overview, beside=not (heats or mask))

    def mask(self, position: int) -> Mask | None:
        """Return what a segmentation network calls each pixel; None for other networks."""
        if self.aimed.kind != "mask":
            return None
        with torch.inference_mode():
            output = self.aimed.output(self.shown.batch)[position]
        classes = output[0] > 0 if len(output) == 1 else output.argmax(0)
        found = classes.long().cpu().numpy()
        single = {0: "background", 1: self.name(0)}
        names = {int(index): self.name(int(index)) for index in np.unique(found)}
        return Mask(found, single if len(output) == 1 else names)

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
        ids = wordnet_ids(tuple(categories))
        named = ", ".join(
            f"({ids[index]}, {name}, {probability:.3f})" if ids else f"{name} {probability:.3f}"
            for index, name, probability in guesses
        )
        told = [f"top {len(guesses)}: {named}", *label_note(self.images[position])]
        return ["; ".join(told), aim]

    def occluded(self, position: int, scores: NDArray[np.float64]) -> Sheet:
        """Draw the sheet of occluded images."""
        explain, preprocess = self.explain, self.setup.network.preprocess
        name = self.name(int(self.aims.index[position]))
        return draw_occluded(
            f"{self.images[position].key}: {name} under occlusion",
            self.pixels[position],
            scores,
            squares(preprocess.crop, explain.patch, step_of(explain)),
            explain.patch,
            fill_colour(explain.fill, preprocess.channels),
            self.setup.look,
        )


def label_note(image: Wanted) -> list[str]:
    """Return the image's label in words, if it has one."""
    return [] if image.label is None else [f"labelled: {image.label}"]


def sheet_path(image: Wanted) -> str:
    """Name an image's files: its id, and of its key what every file system takes."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", PurePosixPath(image.key).stem)[:60]
    return f"explanation/images/{image.image_id:012d}-{stem}"
