"""What a broken night shows, layer by layer, and what the doctor of the data set finds.

    python benchmarks/drift.py SHARED [--parts drift doctor placement] [--cache FOLDER] [--small]

Reference of 450 photos, nights of 100; six faults in 10, 20 or 30 of the 100; the share of nights
above the threshold that 1 % of unchanged nights exceed: for each layer by itself, for the verdict
over all layers, and for three tests on 50 principal components of the last layer: MMD (random
Fourier features), the largest Kolmogorov-Smirnov distance, a classifier (linear discriminant, AUC
on the other half). All are calibrated by drawn nights. The unseen class is all animals, 51 folders
that its reference lacks.

Predicted: half resolution in 20 images is found in three nights of four and named in the middle
layers; the tests on the last layer see little of it; an unseen class is seen by none at 10 images.
"""

import argparse
import collections
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from photo_features import DUPLICATES, FAULTS, LAYERS, LOGITS, Features, Photos, load_photos
from PIL import Image

from cnnvis_ray.config import Reduce
from cnnvis_ray.monitoring import doctor, drift, duplicates, novelty, placement

FAULTED = 3  # every third photo is there with faults
ANIMALS = ("n01", *(f"n02{number}" for number in range(7)))  # WordNet: before the artefacts
RIGHT = ("features.5", "features.7")  # layers that half resolution moves most
Generator = np.random.Generator
Array = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    every: int
    reference: int
    night: int
    doses: tuple[int, ...]
    splits: int
    nights: int
    clean: int


WHOLE = Size(1, 450, 100, (10, 20, 30), 16, 6, 13)
SMALL = Size(8, 56, 12, (4,), 1, 4, 4)


class Embedding:
    """Tests on principal components of one layer, each with its threshold."""

    def __init__(self, reference: Array, size: Size, rng: Generator) -> None:
        self.mean = reference.mean(axis=0)
        _, _, axes = np.linalg.svd(reference - self.mean, full_matrices=False)
        self.axes = axes[:50].T
        self.points = self.project(reference)
        gaps = self.points[:200, None] - self.points[None, :200]
        width = float(np.median(np.linalg.norm(gaps, axis=2)))
        self.waves = rng.normal(size=(self.points.shape[1], 256)) / width
        self.phases = rng.uniform(0, 2 * np.pi, 256)
        drawn = []
        for _ in range(200):
            chosen = rng.permutation(len(self.points))
            drawn.append(
                self.statistics(
                    self.points[chosen[: size.night]], self.points[chosen[size.night :]], rng
                )
            )
        self.thresholds = np.quantile(np.array(drawn), 0.99, axis=0)

    def project(self, values: Array) -> Array:
        """Return principal components."""
        return np.asarray((values - self.mean) @ self.axes)

    def statistics(self, night: Array, rest: Array, rng: Generator) -> tuple[float, float, float]:
        """Return MMD, the largest KS distance and a classifier's AUC."""
        waves = [np.cos(side @ self.waves + self.phases).mean(axis=0) for side in (night, rest)]
        mmd = float(((waves[0] - waves[1]) ** 2).sum())
        distances = []
        for column in range(night.shape[1]):
            own, other = np.sort(night[:, column]), np.sort(rest[:, column])
            both = np.concatenate([own, other])
            shares = [
                np.searchsorted(side, both, side="right") / len(side) for side in (own, other)
            ]
            distances.append(np.abs(shares[0] - shares[1]).max())
        return mmd, float(max(distances)), classify(night, rest, rng)

    def alarms(self, night: Array, rng: Generator) -> Array:
        """Return which of the tests raise an alarm."""
        found = np.array(self.statistics(self.project(night), self.points, rng))
        return np.asarray(found > self.thresholds, dtype=float)


def classify(night: Array, rest: Array, rng: Generator) -> float:
    """Return the AUC, on one half, of a linear discriminant fitted on the other."""
    halves = []
    for side in (night, rest):
        chosen = rng.permutation(len(side))
        halves.append((side[chosen[::2]], side[chosen[1::2]]))
    (own, own_left), (other, other_left) = halves
    within = np.cov(np.concatenate([own - own.mean(0), other - other.mean(0)]).T)
    within += 0.1 * np.trace(within) / len(within) * np.eye(len(within))
    direction = np.linalg.solve(within, own.mean(0) - other.mean(0))
    ranked = (own_left @ direction)[:, None] > (other_left @ direction)[None, :]
    return float(ranked.mean())


def measure_drift(shared: Path, cache: Path, size: Size) -> None:
    """Print power by layer, false alarms and the layer named."""
    clean = load_photos(shared, cache, "clean", size.every)
    edited = {
        fault: load_photos(shared, cache, fault, FAULTED * size.every).features for fault in FAULTS
    }
    animals = np.array([label.startswith(ANIMALS) for label in clean.labels])
    hits: dict[tuple[str, int], list[list[float]]] = {}
    named: dict[tuple[str, int], list[str]] = collections.defaultdict(list)
    for split in range(size.splits):
        rng = np.random.default_rng(split)
        for fault in ("clean", *FAULTS, "unseen class"):
            if fault in ("clean", "unseen class"):
                usable = (
                    np.flatnonzero(~animals)
                    if fault == "unseen class"
                    else np.arange(len(animals))
                )
                chosen = rng.permutation(usable)
                known, pool = chosen[: size.reference], chosen[size.reference :]
                reference = {layer: clean.features[layer][known] for layer in LAYERS}
                calibration = drift.calibrate(reference, size.night, 0.01, split)
                own = {
                    name: float(np.quantile(drift.score(layer, layer.drawn), 0.99))
                    for name, layer in calibration.layers.items()
                }
                tests = Embedding(reference[LAYERS[-1]], size, rng)
            for dose in (0,) if fault == "clean" else size.doses:
                for _ in range(size.clean if fault == "clean" else size.nights):
                    night = draw_night(fault, dose, size, clean, edited, animals, pool, rng)
                    drifts = drift.score_night(calibration, night)
                    alarm = any(layer.changed for layer in drifts)
                    by_layer = {layer.layer: layer.score > own[layer.layer] for layer in drifts}
                    row = [float(by_layer[name]) for name in LAYERS] + [float(alarm)]
                    row += list(tests.alarms(night[LAYERS[-1]], rng))
                    hits.setdefault((fault, dose), []).append(row)
                    if alarm:
                        named[fault, dose].append(drifts[0].layer)
    print(f"share of nights with an alarm at 1 %; {len(next(iter(hits.values())))} clean nights")
    heads = [*[name.removeprefix("features.") for name in LAYERS], "verdict", "MMD", "KS", "C2ST"]
    print(f"{'fault':18}{'images':>7}" + "".join(f"{head:>8}" for head in heads) + "   named")
    for (fault, dose), rows in hits.items():
        most = collections.Counter(named[fault, dose]).most_common(2)
        names = ", ".join(f"{name} {count / len(rows):.2f}" for name, count in most)
        figures = "".join(f"{value:8.2f}" for value in np.mean(rows, axis=0))
        print(f"{fault:18}{dose:7}{figures}   {names}")
    half = named.get(("half resolution", 20), [])
    if half:
        right = np.mean([name in RIGHT for name in half])
        print(f"half resolution in 20 images: named {' or '.join(RIGHT)} in {right:.2f} of alarms")


def draw_night(
    fault: str,
    dose: int,
    size: Size,
    clean: Photos,
    edited: dict[str, Features],
    animals: npt.NDArray[np.bool_],
    pool: npt.NDArray[np.int64],
    rng: Generator,
) -> Features:
    """Draw a night of which some images have a fault."""
    if fault == "clean":
        chosen = rng.choice(pool, size.night, replace=False)
        return {layer: clean.features[layer][chosen] for layer in LAYERS}
    candidates = np.flatnonzero(animals) if fault == "unseen class" else pool[pool % FAULTED == 0]
    bad = rng.choice(candidates, min(dose, len(candidates)), replace=False)
    good = rng.choice(np.setdiff1d(pool, bad), size.night - len(bad), replace=False)
    source = clean.features if fault == "unseen class" else edited[fault]
    rows = bad if fault == "unseen class" else bad // FAULTED
    return {
        layer: np.concatenate([source[layer][rows], clean.features[layer][good]])
        for layer in LAYERS
    }


def measure_doctor(shared: Path, cache: Path, size: Size) -> None:
    """Print what the doctor finds of injected faults."""
    clean = load_photos(shared, cache, "clean", size.every)
    for edit in DUPLICATES:
        find_copies(clean, load_photos(shared, cache, edit, FAULTED * size.every), edit)
    digits, names = load_digits()
    for name, features, labels in (
        ("digits (pixels)", digits, names),
        ("photos (features.12)", clean.features[LAYERS[-1]], list(clean.labels)),
        ("photos (logits)", clean.features[LOGITS], list(clean.labels)),
    ):
        images = describe(labels)
        near = duplicates.nearest_rows(duplicates.standardize(features), 12)
        _, found = doctor.find_suspects(images, features, near)
        if found:
            print(
                f"label errors, 5 % injected, {name}: AUROC {found.auroc:.3f}, precision among as "
                f"many {found.precision:.2f} ({found.num_injected} of {found.num_judged})"
            )
    find_strangers(digits, clean)


def find_copies(clean: Photos, copies: Photos, edit: str) -> None:
    """Print recall of copies at 1 % and 0.1 % of photos wrongly flagged, and as listed."""
    features = [photos.features[LAYERS[-1]] for photos in (clean, copies)]
    directions = duplicates.standardize(np.concatenate(features))
    near = duplicates.nearest_rows(directions)
    images = describe([*clean.labels, *copies.labels], clean.thumbnails + copies.thumbnails)
    pairs = duplicates.list_pairs(near)
    cosines = np.einsum("ij,ij->i", directions[pairs[:, 0]], directions[pairs[:, 1]])
    count = len(clean.labels)
    true = (pairs[:, 1] >= count) & (pairs[:, 0] == (pairs[:, 1] - count) * FAULTED)
    pictures, _ = duplicates.score_pairs(images, pairs, cosines)
    figures = []
    for scores in (cosines, pictures):
        wrong = np.full(len(directions), -1.0)
        for column in (0, 1):
            np.maximum.at(wrong, pairs[~true][:, column], scores[~true])
        for rate in (0.01, 0.001):
            limit = np.quantile(wrong[:count], 1 - rate)
            figures.append(((scores > limit) & true).sum() / len(copies.labels))
    table = duplicates.find_duplicates(images, directions, near).to_pylist()
    listed = {(row["image_id"], row["other_image_id"]) for row in table}
    right = {(row * FAULTED, count + row) for row in range(len(copies.labels))}
    print(
        f"duplicates, {edit:10}: recall at 1 % and 0.1 % wrongly flagged: cosine {figures[0]:.3f} "
        f"{figures[1]:.3f}, with pictures {figures[2]:.3f} {figures[3]:.3f}; as listed "
        f"{len(listed & right) / len(right):.3f}, wrong pairs {len(listed - right)}"
    )


def find_strangers(digits: Array, clean: Photos) -> None:
    """Print what is found of 20 photos among digits, both as 8 x 8 pixels."""
    strangers = np.stack([shrink(thumbnail) for thumbnail in clean.thumbnails[::50][:20]])
    features = np.concatenate([digits, strangers])
    distances = placement.find_neighbours(features, features, 6).distances[:, 5]
    table = doctor.find_outliers(describe([None] * len(features)), distances)
    found = np.array(table["image_id"].to_pylist()) >= len(digits)
    scores = np.log(distances)
    limit = np.quantile(scores[: len(digits)], 0.99)
    ahead = (scores[len(digits) :, None] > scores[None, : len(digits)]).mean()
    print(
        f"outliers: AUROC {ahead:.3f}, recall at 1 % of the digits wrongly flagged "
        f"{(scores[len(digits) :] > limit).mean():.2f}; listed: {found.sum()} of "
        f"{len(strangers)} photos and {(~found).sum()} of {len(digits)} digits"
    )
    nines = np.array([name == "9" for name in load_digits()[1]])
    usual = placement.find_neighbours(digits[~nines], digits[~nines], 6).distances[:, 5]
    new = placement.find_neighbours(digits[~nines], digits[nines], 5).distances[:, 4]
    novel = novelty.find_novelty(usual, new)
    print(f"novelty: {novel.share if novel else 0:.2f} of the nines where the reference has none")


def measure_placement() -> None:
    """Print how well 300 digits are placed on a map of the others, beside fitting together."""
    from cnnvis_ray.reduction import embed

    digits, names = load_digits()
    order = np.random.default_rng(0).permutation(len(digits))
    old, new = order[:-300], order[-300:]
    labels = [[names[row] for row in rows] for rows in (old, new)]
    together = embed(digits[order], Reduce(), 0).positions
    frozen = embed(digits[old], Reduce(), 0).positions
    near = placement.find_neighbours(digits[old], digits[new])
    started = time.perf_counter()
    placed = placement.place_images(frozen, near)
    seconds = time.perf_counter() - started
    for name, base, positions in (
        ("fitted together", together[:-300], together[-300:]),
        ("one neighbour", frozen, frozen[near.indices[:, 0]]),
        ("placed", frozen, placed),
    ):
        quality = placement.judge_placement(
            digits[old], base, digits[new], positions, labels[0], labels[1]
        )
        assert quality is not None
        print(f"{name:16} neighbours kept {quality.kept:.3f}, purity {quality.purity:.3f}")
    print(f"placed 300 images in {seconds:.1f} s")


def load_digits() -> tuple[Array, list[str]]:
    """Return the digits' pixels and names."""
    from sklearn.datasets import load_digits as load

    pixels, digits = load(return_X_y=True)
    return pixels.astype(np.float32), [str(digit) for digit in digits]


def shrink(thumbnail: bytes) -> Array:
    """Return a thumbnail as a digit is stored: 8 x 8, grey, 0 to 16."""
    import io

    image = Image.open(io.BytesIO(thumbnail)).convert("L").resize((8, 8))
    return np.asarray(image, dtype=np.float32).ravel() * 16 / 255


def describe(
    labels: Sequence[str | None], thumbnails: tuple[bytes, ...] = ()
) -> duplicates.Images:
    """Return images with their rows as ids."""
    rows = range(len(labels))
    return duplicates.Images(list(rows), [str(row) for row in rows], labels, thumbnails)


def main() -> None:
    """Measure the parts asked for."""
    parser = argparse.ArgumentParser(description="drift, doctor and placement")
    parser.add_argument("shared", type=Path)
    parser.add_argument("--parts", nargs="+", default=["drift", "doctor", "placement"])
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "cnnvis-drift")
    parser.add_argument("--small", action="store_true")
    parsed = parser.parse_args()
    size = SMALL if parsed.small else WHOLE
    if "drift" in parsed.parts:
        measure_drift(parsed.shared, parsed.cache, size)
    if "doctor" in parsed.parts:
        measure_doctor(parsed.shared, parsed.cache, size)
    if "placement" in parsed.parts and not parsed.small:
        measure_placement()


if __name__ == "__main__":
    main()
