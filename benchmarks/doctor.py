"""What the doctor of the data set finds of injected faults, and how true placed images are.

Run by `drift.py`. Near duplicates: recall of copies at 1 % of photos wrongly flagged, beside the
cosine alone. Label errors: 5 % exchanged. Outliers: 20 photos among digits, all as 8 x 8 pixels.
Placement: 300 digits on a map of the others, beside fitting all together.
"""

import io
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from photo_features import DUPLICATES, FAULTED, LAYERS, LOGITS, Photos, load_photos
from PIL import Image
from timing import Figure, report

from cnnvis_ray.config import Reduce
from cnnvis_ray.monitoring import doctor, duplicates, novelty, placement, suspects

Array = npt.NDArray[np.floating]


def measure_doctor(shared: Path, cache: Path, every: int) -> None:
    """Report what the doctor finds of injected faults."""
    clean = load_photos(shared, cache, "clean", every)
    for edit in DUPLICATES:
        find_copies(clean, load_photos(shared, cache, edit, FAULTED * every), edit)
    digits, names = load_digits()
    for name, features, labels in (
        ("digits (pixels)", digits, names),
        ("photos (features.12)", clean.features[LAYERS[-1]], list(clean.labels)),
        ("photos (logits)", clean.features[LOGITS], list(clean.labels)),
    ):
        images = describe(labels)
        near = duplicates.nearest_rows(duplicates.standardize(features), 12)
        _, found = suspects.find_suspects(images, features, near)
        if found:
            goal = "ours >= 0.95" if name.startswith("digits") else ""
            what = f"label errors, 5 % of {found.num_judged} exchanged, {name}: AUROC"
            note = f"precision among as many {found.precision:.2f}; cleanlab is not installed"
            report(Figure("doctor", what, "cleanlab", found.auroc, None, "", goal=goal, note=note))
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
        f"duplicates, {edit:10}: recall at 0.1 % wrongly flagged: cosine {figures[1]:.3f}, with "
        f"pictures {figures[3]:.3f}; as listed {len(listed & right) / len(right):.3f}, wrong "
        f"pairs {len(listed - right)}"
    )
    what = f"near duplicates, {edit}: recall at 1 % of photos wrongly flagged"
    ours, theirs = float(figures[2]), float(figures[0])
    report(Figure("doctor", what, "cosine", ours, theirs, "share", goal="ours >= 0.98"))


def find_strangers(digits: Array, clean: Photos) -> None:
    """Report what is found of 20 photos among digits, both as 8 x 8 pixels."""
    from sklearn.ensemble import IsolationForest
    from sklearn.neighbors import LocalOutlierFactor

    strangers = np.stack(
        [shrink(thumbnail) for thumbnail in clean.thumbnails[:: len(clean.thumbnails) // 20][:20]]
    )
    features = np.concatenate([digits, strangers])
    count = len(digits)
    distances = doctor.fifth_distances(features)
    table = doctor.find_outliers(describe([None] * len(features)), distances)
    found = np.array(table["image_id"].to_pylist()) >= count
    what = "outliers, 20 photos among 1,797 digits: AUROC"
    note = f"listed: {found.sum()} of {len(strangers)} photos, {(~found).sum()} of {count} digits"
    for peer, scores in (
        (
            "IsolationForest",
            -IsolationForest(random_state=0).fit(features).score_samples(features),
        ),
        ("LocalOutlierFactor", -LocalOutlierFactor().fit(features).negative_outlier_factor_),
    ):
        ours, theirs = (
            float((side[count:, None] > side[None, :count]).mean()) for side in (distances, scores)
        )
        report(Figure("doctor", what, peer, ours, theirs, "", goal=">= 1", note=note))
    nines = np.array([name == "9" for name in load_digits()[1]])
    usual = placement.find_neighbours(digits[~nines], digits[~nines], 6).distances[:, 5]
    new = placement.find_neighbours(digits[~nines], digits[nines], 5).distances[:, 4]
    novel = novelty.find_novelty(usual, new)
    share = novel.share if novel else 0.0
    report(Figure("placement", "nines novel to a run without", "expected", share, 0.05, "share"))


def measure_placement() -> None:
    """Report how well 300 digits are placed on a map of the others, beside fitting together."""
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
    kept, purity = {}, {}
    for name, base, positions in (
        ("fitted together", together[:-300], together[-300:]),
        ("one neighbour", frozen, frozen[near.indices[:, 0]]),
        ("placed", frozen, placed),
    ):
        quality = placement.judge_placement(
            digits[old], base, digits[new], positions, labels[0], labels[1]
        )
        assert quality is not None and quality.purity is not None
        kept[name], purity[name] = quality.kept, quality.purity
    note = f"{seconds:.1f} s"
    for peer in ("fitted together", "one neighbour"):
        goals = (">= 0.9", ">= 0.99") if peer == "fitted together" else ("", "")
        for what, values, goal in zip(("kept", "purity"), (kept, purity), goals, strict=True):
            figure = Figure(
                "placement",
                f"300 digits on a frozen map of 1,497: neighbours, {what}",
                peer,
                values["placed"],
                values[peer],
                "share",
                goal=goal,
                note=note,
            )
            report(figure)


def load_digits() -> tuple[Array, list[str]]:
    """Return the digits' pixels and names."""
    from sklearn.datasets import load_digits as load

    pixels, digits = load(return_X_y=True)
    return pixels.astype(np.float32), [str(digit) for digit in digits]


def shrink(thumbnail: bytes) -> Array:
    """Return a thumbnail as a digit is stored: 8 x 8, grey, 0 to 16."""
    image = Image.open(io.BytesIO(thumbnail)).convert("L").resize((8, 8))
    return np.asarray(image, dtype=np.float32).ravel() * 16 / 255


def describe(
    labels: Sequence[str | None], thumbnails: tuple[bytes, ...] = ()
) -> duplicates.Images:
    """Return images with their rows as ids."""
    rows = range(len(labels))
    return duplicates.Images(list(rows), [str(row) for row in rows], labels, thumbnails)
