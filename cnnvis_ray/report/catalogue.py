"""The catalogue: which images a report shows, in which order, and what each is called.

Images are numbered from 0 in the order of their ids. Work units are append-only, so an added
image leaves the earlier numbers as they are.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cnnvis_ray.ledger import Run
from cnnvis_ray.ledger.units import SLOTS
from cnnvis_ray.storage import read_table

NOTHING = -1


@dataclass(frozen=True, slots=True)
class Unit:
    """One work unit's images, as the report shows them."""

    number: int
    path: str
    sha256: str
    labels: str  # digest of the present labels
    first: int
    rows: int
    ids: tuple[int, ...] | None

    @property
    def name(self) -> str:
        """The unit's number, as its files are named."""
        return f"{self.number:06d}"


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All shown images; arrays are ``image``, by image id.

    Attributes:
        label: index into `classes`, or `NOTHING`.
        prediction: the most probable class, index into `classes`, or `NOTHING`.
        classes: names of labels and predictions: labels first, each by number of images.
        total: usable images of the run, shown or not.
    """

    image_id: NDArray[np.int64]
    label: NDArray[np.int32]
    prediction: NDArray[np.int32]
    classes: list[str]
    units: list[Unit]
    total: int

    def index_of(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of each image; `NOTHING` for one that is not shown."""
        if not len(self.image_id):
            return np.full(len(ids), NOTHING)
        place = np.searchsorted(self.image_id, ids).clip(max=len(self.image_id) - 1)
        return np.where(self.image_id[place] == ids, place, NOTHING)

    def words(self) -> NDArray[np.int32]:
        """Return what each image is called: its label, or its prediction where it has none."""
        return np.where(self.label >= 0, self.label, self.prediction)


def present_labels(run: Run, columns: list[str]) -> pa.Table:
    """Read the image rows' ids and labels, the present ones, sorted by id."""
    return run.images(["image_id", *columns]).sort_by("image_id")


def read_catalogue(run: Run, max_images: int | None = None) -> Catalogue:
    """Read what the images are called, shard by shard.

    Args:
        run: the run.
        max_images: show at most so many, evenly by label.

    Raises:
        RefusedError: the run has no finished image.
    """
    rows = present_labels(run, ["label"])
    ids, labels = rows["image_id"].to_numpy(), rows["label"].to_pylist()
    predictions: dict[int, str] = {}
    files = run.files("images", "images")
    for file in files:
        table = read_table(run.store, file.path, ["image_id", "top5"])
        found = table.filter(pc.greater(pc.list_value_length(table["top5"]), 0))
        best = pc.list_element(found["top5"], 0).combine_chunks()
        names = pc.struct_field(best, "name").to_pylist()
        predictions.update(zip(found["image_id"].to_pylist(), names, strict=True))
    called = [predictions.get(image) for image in ids.tolist()]
    kept = choose(labels, max_images)
    ids = ids[kept]
    labels = [labels[place] for place in kept.tolist()]
    called = [called[place] for place in kept.tolist()]
    classes = name_classes(labels, called)
    number = {name: index for index, name in enumerate(classes)}
    units = cut_units(run, ids, labels, whole=len(kept) == rows.num_rows)
    return Catalogue(
        ids,
        np.array([NOTHING if name is None else number[name] for name in labels], np.int32),
        np.array([NOTHING if name is None else number[name] for name in called], np.int32),
        classes,
        units,
        rows.num_rows,
    )


def name_classes(labels: list[str | None], called: list[str | None]) -> list[str]:
    """List the names of classes: labels by number of images, then predictions."""
    counts = Counter(name for name in labels if name is not None)
    others = Counter(name for name in called if name is not None and name not in counts)
    ordered = [sorted(found, key=lambda name: (-found[name], name)) for found in (counts, others)]
    return [*ordered[0], *ordered[1]]


def choose(labels: list[str | None], limit: int | None) -> NDArray[np.int64]:
    """Choose at most so many images, one label after the other, each label's evenly spread."""
    total = len(labels)
    if limit is None or total <= limit:
        return np.arange(total)
    by_label: dict[str | None, list[int]] = {}
    for place, label in enumerate(labels):
        by_label.setdefault(label, []).append(place)
    chosen: list[int] = []
    groups = sorted(by_label.values(), key=len)
    for done, group in enumerate(groups):  # small classes leave their share to large ones
        share = (limit - len(chosen)) // (len(groups) - done)
        count = min(share, len(group))
        chosen.extend(group[step * len(group) // count] for step in range(count))
    return np.array(sorted(chosen), np.int64)


def cut_units(
    run: Run, ids: NDArray[np.int64], labels: list[str | None], whole: bool
) -> list[Unit]:
    """Cut the shown images along the work units' shards."""
    units = []
    numbers = ids // SLOTS
    for file in run.files("images", "images"):
        number = int(file.path.rsplit("/", 1)[-1][:6])
        first, stop = np.searchsorted(numbers, [number, number + 1]).tolist()
        if first == stop:
            continue
        text = "\0".join(label or "" for label in labels[first:stop])
        own = None if whole else tuple(ids[first:stop].tolist())
        said = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
        units.append(Unit(number, file.path, file.sha256, said, first, stop - first, own))
    return sorted(units, key=lambda unit: unit.number)
