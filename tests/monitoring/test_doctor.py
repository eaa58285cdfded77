import io
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from cnnvis_ray.monitoring import (
    BROKEN_CLASSES,
    DUPLICATES,
    OUTLIERS,
    SUSPECTS,
    Images,
    draw_broken_classes,
    draw_duplicates,
    draw_outliers,
    draw_suspects,
    fifth_distances,
    find_broken_classes,
    find_duplicates,
    find_outliers,
    find_suspects,
    nearest_rows,
    split_of,
    standardize,
)
from cnnvis_ray.monitoring.doctor import measure_exchange

PIXELS, DIGITS = load_digits(return_X_y=True)
NAMES = [str(digit) for digit in DIGITS]
NEAR = nearest_rows(standardize(PIXELS), 12)


def describe(labels: Sequence[str | None]) -> Images:
    return Images(list(range(len(labels))), [f"{row}.png" for row in range(len(labels))], labels)


def encode(pixels: np.ndarray, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def paint(count: int) -> np.ndarray:
    """Smooth random pictures, 96 x 96."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    large = [Image.fromarray(each).resize((96, 96), Image.Resampling.BICUBIC) for each in small]
    return np.stack([np.asarray(image) for image in large])


def test_edited_copies_are_found_across_classes_and_splits() -> None:
    pictures = paint(40)
    edits = [
        encode(pictures[0], quality=30),
        encode(pictures[1][::2, ::2]),
        encode(pictures[2][10:-10, 10:-10]),
        encode(pictures[3][:, ::-1]),
        encode((pictures[4] * 0.7).astype(np.uint8)),
    ]
    thumbnails = [encode(picture) for picture in pictures] + edits
    rng = np.random.default_rng(1)
    features = rng.normal(size=(40, 30))
    features = np.concatenate([features, features[:5] + 0.1 * rng.normal(size=(5, 30))])
    keys = [f"train/{row}.jpg" for row in range(40)] + [f"test/{row}.jpg" for row in range(5)]
    labels = ["cat"] * 42 + ["dog"] * 2 + [None]
    images = Images(list(range(100, 145)), keys, labels, thumbnails)
    directions = standardize(features)
    table = find_duplicates(images, directions, nearest_rows(directions))
    assert table.schema == DUPLICATES
    rows = sorted(table.to_pylist(), key=lambda row: row["image_id"])
    pairs = [(row["image_id"], row["other_image_id"]) for row in rows]
    assert pairs == [(100 + row, 140 + row) for row in range(5)]
    assert all(row["leak"] and row["score"] > 0.9 for row in rows)
    assert [row["across_classes"] for row in rows] == [False, False, True, True, False]
    sheet = draw_duplicates(table, dict(zip(images.image_ids, thumbnails, strict=True)))
    assert sheet is not None


def test_without_thumbnails_features_decide() -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(60, 40))
    features = np.concatenate([features, features[:1] + 0.01])
    directions = standardize(features)
    rows = find_duplicates(describe([None] * 61), directions, nearest_rows(directions)).to_pylist()
    assert [(row["image_id"], row["other_image_id"]) for row in rows] == [(0, 60)]
    assert not rows[0]["across_classes"] and not rows[0]["leak"]


def test_digits_which_all_look_alike_are_not_all_duplicates() -> None:
    thumbnails = [
        encode(np.kron(np.uint8(15 * row.reshape(8, 8)), np.ones((16, 16), np.uint8)))
        for row in PIXELS[:300]
    ]
    images = Images(range(300), NAMES[:300], NAMES[:300], thumbnails)
    directions = standardize(PIXELS[:300])
    assert find_duplicates(images, directions, nearest_rows(directions)).num_rows <= 3


def test_no_image_and_one_have_no_duplicates() -> None:
    for count in (0, 1):
        directions = standardize(PIXELS[:count]) if count else np.empty((0, 4), np.float32)
        near = nearest_rows(directions)
        assert find_duplicates(describe(NAMES[:count]), directions, near).num_rows == 0


@pytest.mark.parametrize(
    ("key", "split"),
    [
        ("train/cat/1.jpg", "train"),
        ("set/Validation/1.jpg", "val"),
        ("testing/1.jpg", "test"),
        ("cat/train.jpg", None),
        ("latest/1.jpg", None),
        ("17", None),
    ],
)
def test_splits_are_folders(key: str, split: str | None) -> None:
    assert split_of(key) == split


def test_exchanged_labels_are_found_and_the_right_one_is_offered() -> None:
    rng = np.random.default_rng(3)
    wrong = rng.choice(len(NAMES), 90, replace=False)
    labels = list(NAMES)
    for row in wrong:
        labels[row] = str((int(NAMES[row]) + rng.integers(1, 10)) % 10)
    table, calibration = find_suspects(describe(labels), PIXELS, NEAR)
    assert calibration is not None
    assert calibration.auroc >= 0.95 and calibration.num_judged == len(NAMES)
    rows = table.to_pylist()
    found = {row["image_id"] for row in rows} & set(wrong.tolist())
    assert table.schema == SUSPECTS
    assert len(found) >= 75
    assert len(found) / len(rows) >= 0.75
    right = [
        row["neighbour_label"] == NAMES[row["image_id"]]
        for row in rows
        if row["image_id"] in found
    ]
    assert np.mean(right) >= 0.9
    assert all(row["chance"] >= 0.5 for row in rows)
    assert [row["chance"] for row in rows] == sorted((r["chance"] for r in rows), reverse=True)
    assert draw_suspects(table, {}) is not None


def test_right_labels_get_no_chance_of_being_wrong() -> None:
    table, calibration = find_suspects(describe(NAMES), PIXELS, NEAR)
    assert calibration is not None and calibration.wrong_share is not None
    assert table.num_rows <= 4 and calibration.wrong_share < 0.02


def test_classes_of_few_images_get_no_chance() -> None:
    few = np.concatenate([np.flatnonzero(digit == DIGITS)[:5] for digit in range(10)])
    labels = [NAMES[row] for row in few]
    table, calibration = find_suspects(
        describe(labels), PIXELS[few], nearest_rows(standardize(PIXELS[few]), 12)
    )
    assert calibration is not None and calibration.wrong_share is None
    assert calibration.num_judged == calibration.num_without_chance == 50
    assert table["chance"].to_pylist() == [None, None]  # 5 % of the images, most suspect first
    scores = table["score"].to_pylist()
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    "labels", [[None] * 30, ["cat"] * 30, ["cat", "dog"] * 4 + [None] * 22, list("abcdefghij") * 3]
)
def test_labels_that_cannot_be_judged_do_not_fail(labels: list[str | None]) -> None:
    table, calibration = find_suspects(
        describe(labels), PIXELS[:30], nearest_rows(standardize(PIXELS[:30]))
    )
    assert table.schema == SUSPECTS
    assert calibration is None or calibration.num_judged == 30


def test_strangers_are_outliers() -> None:
    rng = np.random.default_rng(0)
    strangers = rng.uniform(0, 16, (10, 64)) * (rng.random((10, 64)) < 0.3)
    features = np.concatenate([PIXELS, strangers])
    table = find_outliers(describe([None] * len(features)), fifth_distances(features))
    assert table.schema == OUTLIERS
    ids = table["image_id"].to_pylist()
    assert set(range(1797, 1807)) <= set(ids)
    assert len(ids) <= 10 + 18  # 1 % of the digits
    assert draw_outliers(table, {}) is not None


def test_fifth_distances_by_hand() -> None:
    line = np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0], [50.0]])
    expected = np.array([5, 4, 3, 3, 4, 5, 49]) / line.std()
    assert fifth_distances(line) == pytest.approx(expected, rel=1e-4)
    assert fifth_distances(line[:2]) == pytest.approx([2, 2])
    assert fifth_distances(line[:1]).tolist() == [np.inf]
    assert fifth_distances(np.ones((9, 3))).tolist() == [0.0] * 9


def test_equal_and_missing_distances_are_no_outliers() -> None:
    for distances in (np.zeros(5), np.ones(5), np.full(5, np.inf), np.empty(0)):
        assert find_outliers(describe([None] * len(distances)), distances).num_rows == 0


def test_a_class_of_two_and_two_classes_of_one() -> None:
    labels = [
        "0 or 6" if name in "06" else f"8{'ab'[row % 2]}" if name == "8" else name
        for row, name in enumerate(NAMES)
    ]
    table = find_broken_classes(describe(labels), PIXELS, NEAR)
    assert table.schema == BROKEN_CLASSES
    rows = {(row["kind"], row["label"], row["other_label"]): row for row in table.to_pylist()}
    assert ("mixed", "8a", "8b") in rows
    split = rows["split", "0 or 6", None]
    groups = [{NAMES[row] for row in split[side]} for side in ("images", "other_images")]
    sizes = sorted(len(split[side]) for side in ("images", "other_images"))
    assert sizes == pytest.approx([178, 181], abs=6)
    assert {"0"} <= groups[0] | groups[1]
    assert draw_broken_classes(table, {}) is not None


def test_whole_classes_are_not_broken() -> None:
    kinds = find_broken_classes(describe(NAMES), PIXELS, NEAR).to_pylist()
    assert {row["label"] for row in kinds} <= {"1"}  # ones with and without a foot
    unlabelled = find_broken_classes(describe([None] * 1797), PIXELS, NEAR)
    assert unlabelled.num_rows == 0 and draw_broken_classes(unlabelled, {}) is None


def test_exchange_by_hand() -> None:
    first, second = np.array([0, 1]), np.array([2, 3])
    apart = np.array([[1], [0], [3], [2]])
    assert measure_exchange(first, second, apart) == 0
    mixed = np.array([[1, 2], [2, 3], [0, 3], [1, 0]])
    # 8 neighbours, 6 across; by chance 2 * 2 * 2 / (4 * 3) = 2/3
    assert measure_exchange(first, second, mixed) == pytest.approx(6 / 8 / (2 / 3))
    assert measure_exchange(first, second, np.full((4, 3), -1)) is None
