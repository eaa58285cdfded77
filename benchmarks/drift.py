"""What a broken night shows, layer by layer, and what the doctor of the data set finds.

    python benchmarks/drift.py SHARED [--parts drift doctor placement] [--cache FOLDER] [--small]

Reference of 450 photos, nights of 100; six faults in 10, 20 or 30 of the 100; the share of nights
above the threshold that 1 % of unchanged nights exceed: for each layer by itself, for the verdict
over all layers, and for three tests on 50 principal components of the last layer (`Embedding`).
All are calibrated by drawn nights. The unseen class is all animals, 51 folders that its reference
lacks. The parts doctor and placement are in `doctor.py`.

Predicted: half resolution in 20 images is found in three nights of four and named in the middle
layers; the tests on the last layer see little of it; an unseen class is seen by none at 10 images.
"""

import argparse
import collections
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from doctor import measure_doctor, measure_placement
from photo_features import FAULTED, FAULTS, LAYERS, Features, Photos, load_photos
from timing import Figure, report

from cnnvis_ray.monitoring import calibration, drift

ANIMALS = ("n01", *(f"n02{number}" for number in range(7)))  # WordNet: before the artefacts
RIGHT = ("features.5", "features.7")  # layers that half resolution moves most
PEERS = ("MMD on the last layer", "KS on the last layer", "classifier on the last layer")
Generator = np.random.Generator
Array = npt.NDArray[np.floating]
Hits = dict[tuple[str, int], list[list[float]]]
Names = dict[tuple[str, int], list[str]]


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


WHOLE = Size(1, 450, 100, (10, 20, 30), 32, 3, 7)  # nights of one reference are alike
SMALL = Size(10, 60, 12, (4,), 1, 4, 4)


class Embedding:
    """Tests on principal components of one layer, each with its threshold.

    MMD (random Fourier features), the largest Kolmogorov-Smirnov distance, and a classifier
    (linear discriminant, AUC on the other half).
    """

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
    """Report power, false alarms and the layer named."""
    clean = load_photos(shared, cache, "clean", size.every)
    edited = {
        fault: load_photos(shared, cache, fault, FAULTED * size.every).features for fault in FAULTS
    }
    hits: Hits = {}
    named: Names = collections.defaultdict(list)
    for split in range(size.splits):
        measure_split(split, size, clean, edited, hits, named)
    heads = [*[name.removeprefix("features.") for name in LAYERS], "verdict", "MMD", "KS", "C2ST"]
    print(f"{'fault':18}{'images':>7}" + "".join(f"{head:>8}" for head in heads) + "   named")
    for (fault, dose), rows in hits.items():
        most = collections.Counter(named[fault, dose]).most_common(2)
        names = ", ".join(f"{name} {count / len(rows):.2f}" for name, count in most)
        figures = "".join(f"{value:8.2f}" for value in np.mean(rows, axis=0))
        print(f"{fault:18}{dose:7}{figures}   {names}")
    for (fault, dose), rows in hits.items():
        shares = np.mean(rows, axis=0)
        ours, others = float(shares[len(LAYERS)]), shares[len(LAYERS) + 1 :]
        if fault == "clean":
            what = f"false alarms in {len(rows)} unchanged nights of {size.night}"
            report(Figure("drift", what, "stated rate", ours, 0.01, "share", rounds=len(rows)))
            continue
        what = f"nights found, {fault} in {dose} of {size.night}"
        goal = "ours >= 0.75" if (fault, dose) == ("half resolution", 20) else ""
        for peer, theirs in zip(PEERS, others, strict=True):
            own = Figure("drift", what, peer, ours, float(theirs), "share", None, goal, len(rows))
            report(own)
    half = named.get(("half resolution", 20), [])
    if half:
        right = float(np.mean([name in RIGHT for name in half]))
        what = f"alarms that name {' or '.join(RIGHT)}, half resolution in 20 of {size.night}"
        report(Figure("drift", what, "no peer names a layer", right, None, "share"))


def measure_split(
    split: int,
    size: Size,
    clean: Photos,
    edited: dict[str, Features],
    hits: Hits,
    named: Names,
) -> None:
    """Draw one reference and its nights, and note which tests raise an alarm."""
    rng = np.random.default_rng(split)
    animals = np.array([label.startswith(ANIMALS) for label in clean.labels])
    for fault in ("clean", *FAULTS, "unseen class"):
        if fault in ("clean", "unseen class"):
            usable = ~animals if fault == "unseen class" else np.ones(len(animals), bool)
            chosen = rng.permutation(np.flatnonzero(usable))
            known, pool = chosen[: size.reference], chosen[size.reference :]
            reference = {layer: clean.features[layer][known] for layer in LAYERS}
            calibrated = calibration.calibrate(reference, size.night, 0.01, split)
            own = {
                name: float(np.quantile(calibration.score(layer, layer.drawn), 0.99))
                for name, layer in calibrated.layers.items()
            }
            tests = Embedding(reference[LAYERS[-1]], size, rng)
        for dose in (0,) if fault == "clean" else size.doses:
            for _ in range(size.clean if fault == "clean" else size.nights):
                night = draw_night(fault, dose, size, clean, edited, animals, pool, rng)
                drifts = drift.score_night(calibrated, night)[1]
                alarm = any(layer.changed for layer in drifts)
                by_layer = {layer.layer: layer.score > own[layer.layer] for layer in drifts}
                row = [float(by_layer[name]) for name in LAYERS] + [float(alarm)]
                row += list(tests.alarms(night[LAYERS[-1]], rng))
                hits.setdefault((fault, dose), []).append(row)
                if alarm:
                    named[fault, dose].append(drifts[0].layer)


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
        measure_doctor(parsed.shared, parsed.cache, size.every)
    if "placement" in parsed.parts and not parsed.small:
        measure_placement()


if __name__ == "__main__":
    main()
