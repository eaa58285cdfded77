"""Near duplicates: pairs of images that show the same, across classes and across splits.

Candidates come from the features (nearest by cosine of standardized features), which hardly change
under compression, scaling, mirroring and cropping. Where thumbnails are given each candidate is
then compared as a picture: the correlation of small grey versions, the best over mirroring and
over the crops in `WINDOWS` of one of the two. Correlation ignores brightness and contrast.

A pair that is less alike than the usual image and its second nearest is not compared: pictures of
sky over ground correlate, too. Features alone order pairs of one subject and pairs of one picture
badly (measured on photos: half size found in 83 %); pictures alone would cost the square of the
images.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

Points = npt.NDArray[np.floating]
Indices = npt.NDArray[np.int64]
Array = npt.NDArray[np.float32]

NUM_CANDIDATES = 5  # nearest images that each image is compared with
SIDE = 24  # pixels of the grey versions
SCALES = (0.9, 0.8, 0.7)
# Shares of width and height: left, top, right, bottom. The whole, then crops at nine places.
WINDOWS: tuple[tuple[float, float, float, float], ...] = (
    (0.0, 0.0, 1.0, 1.0),
    *(
        (x * (1 - scale), y * (1 - scale), x * (1 - scale) + scale, y * (1 - scale) + scale)
        for scale in SCALES
        for x in (0.0, 0.5, 1.0)
        for y in (0.0, 0.5, 1.0)
    ),
)
# A duplicate lies nearer than this share of the distance (1 - score) of the usual second partner.
# Measured on photos, five edits: by pictures all copies are found, and 0 of 300 without a copy are
# flagged (with 0.2 sky over ground is a copy of sky over ground, 1 of 300).
PICTURE_SHARE, COSINE_SHARE = 0.12, 0.45
MOST_SCORE = 0.995  # equal pictures are always found, however alike all images are
SPLITS: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
DUPLICATES = pa.schema(
    [
        ("image_id", pa.int64()),
        ("key", pa.string()),
        ("label", pa.string()),
        ("other_image_id", pa.int64()),
        ("other_key", pa.string()),
        ("other_label", pa.string()),
        ("score", pa.float32()),
        ("cosine", pa.float32()),
        ("across_classes", pa.bool_()),
        ("leak", pa.bool_()),
    ]
)

KNOWN_DUPLICATES = pa.schema(
    [
        ("image_id", pa.int64()),
        ("key", pa.string()),
        ("label", pa.string()),
        ("known_image_id", pa.int64()),  # of the run
        ("known_key", pa.string()),  # of the run
        ("known_label", pa.string()),  # of the run
        ("score", pa.float32()),
        ("cosine", pa.float32()),
        ("across_classes", pa.bool_()),
    ]
)


@dataclass(frozen=True, slots=True)
class Images:
    """What the doctor knows of the images of a run, row by row.

    Attributes:
        image_ids: of the run.
        keys: stable names.
        labels: class names, `None` for an image without one.
        thumbnails: JPEG bytes, `None` for an image without one; empty where there are none.
    """

    image_ids: Sequence[int]
    keys: Sequence[str]
    labels: Sequence[str | None]
    thumbnails: Sequence[bytes | None] = ()


def standardize(features: Points) -> Array:
    """Return standardized features of length 1, so that inner products are cosines.

    A constant feature becomes 0, and so does an image at the mean.
    """
    values = features.astype(np.float32)
    deviation = values.std(axis=0)
    scaled = (values - values.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
    return np.asarray(scaled / np.where(lengths > 0, lengths, 1), dtype=np.float32)


def nearest_rows(directions: Array, count: int = NUM_CANDIDATES) -> Indices:
    """Return the nearest other rows of every row by cosine, exactly, ``image neighbour``.

    For more than about 100,000 images use an index instead.
    """
    count = min(count, len(directions) - 1)
    if count < 1:
        return np.empty((len(directions), 0), np.int64)
    found = np.empty((len(directions), count), np.int64)
    for first in range(0, len(directions), 1_024):
        cosines = directions[first : first + 1_024] @ directions.T
        rows = np.arange(len(cosines))
        cosines[rows, rows + first] = -np.inf
        near = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(cosines, near, axis=1), axis=1, kind="stable")
        found[first : first + 1_024] = np.take_along_axis(near, order, axis=1)
    return found


def find_duplicates(images: Images, directions: Array, neighbours: Indices) -> pa.Table:
    """List pairs of near duplicates, most alike first.

    Args:
        images: all images.
        directions: of `standardize`, ``image feature``.
        neighbours: candidates of each image, rows, ``image neighbour``; negative ones are left
            out; those of several layers may stand side by side.

    Returns:
        Schema `DUPLICATES`; ``score`` is the pictures' correlation, or the cosine where an image
        has no thumbnail.
    """
    pairs = list_pairs(neighbours)
    if len(pairs) == 0:
        return DUPLICATES.empty_table()
    cosines = np.einsum("ij,ij->i", directions[pairs[:, 0]], directions[pairs[:, 1]])
    likely = cosines >= usual_score(pairs, cosines)
    pairs, cosines = pairs[likely], cosines[likely]
    scores, pictured = score_pairs(images, pairs, cosines)
    chosen = np.zeros(len(pairs), np.bool_)
    for kind, share in ((pictured, PICTURE_SHARE), (~pictured, COSINE_SHARE)):
        if kind.any():
            chosen |= kind & (scores >= choose_threshold(pairs[kind], scores[kind], share))
    order = [index for index in np.argsort(-scores, kind="stable") if chosen[index]]
    return pa.Table.from_pylist(
        [
            describe_pair(images, pairs[index], float(scores[index]), float(cosines[index]))
            for index in order
        ],
        schema=DUPLICATES,
    )


def find_known(
    known: Images, new: Images, known_features: Points, new_features: Points
) -> pa.Table:
    """List new images that show what a known one does, most alike first.

    Args:
        known: images of the run.
        new: images of a night; their ids may be those of other images of the run.
        known_features: ``image feature``.
        new_features: ``image feature``.

    Returns:
        Schema `KNOWN_DUPLICATES`.
    """
    count = len(known.image_ids)
    if not count or not len(new.image_ids):
        return KNOWN_DUPLICATES.empty_table()
    directions = standardize(np.concatenate([known_features, new_features]))
    most = min(NUM_CANDIDATES, count)
    near = np.full((len(directions), most), -1)
    for first in range(count, len(directions), 1_024):
        cosines = directions[first : first + 1_024] @ directions[:count].T
        near[first : first + 1_024] = np.argpartition(-cosines, most - 1, axis=1)[:, :most]
    images = Images(
        range(len(directions)),
        [*known.keys, *new.keys],
        [*known.labels, *new.labels],
        [*known.thumbnails, *new.thumbnails],
    )
    return pa.Table.from_pylist(
        [
            {
                "image_id": new.image_ids[row["other_image_id"] - count],
                "key": row["other_key"],
                "label": row["other_label"],
                "known_image_id": known.image_ids[row["image_id"]],
                "known_key": row["key"],
                "known_label": row["label"],
                "score": row["score"],
                "cosine": row["cosine"],
                "across_classes": row["across_classes"],
            }
            for row in find_duplicates(images, directions, near).to_pylist()
        ],
        schema=KNOWN_DUPLICATES,
    )


def list_pairs(neighbours: Indices) -> Indices:
    """Return every pair of rows once, the smaller first."""
    count = neighbours.shape[1]
    own = np.repeat(np.arange(len(neighbours)), count)
    other = neighbours.ravel()
    pairs = np.column_stack([np.minimum(own, other), np.maximum(own, other)])
    pairs = pairs[(other >= 0) & (own != other)]
    return np.unique(pairs, axis=0).astype(np.int64)


def score_pairs(
    images: Images, pairs: Indices, cosines: Array
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Return how alike the images of each pair are, and which pairs were compared as pictures."""
    scores = cosines.copy()
    pictured = np.zeros(len(pairs), np.bool_)
    if not images.thumbnails:
        return scores, pictured
    thumbnails = ((int(row), images.thumbnails[row]) for row in np.unique(pairs))
    views = {row: cut_views(each) for row, each in thumbnails if each is not None}
    for number, (left, right) in enumerate(pairs):
        if left in views and right in views:
            scores[number] = compare_views(views[left], views[right])
            pictured[number] = True
    return scores, pictured


def cut_views(thumbnail: bytes) -> Array:
    """Return the grey versions of all windows, each of mean 0 and length 1, ``window pixel``."""
    image = Image.open(io.BytesIO(thumbnail)).convert("L")
    width, height = image.size
    views = [
        image.resize(
            (SIDE, SIDE),
            Image.Resampling.BOX,
            box=(left * width, top * height, right * width, bottom * height),
        )
        for left, top, right, bottom in WINDOWS
    ]
    pixels = np.stack([np.asarray(view, dtype=np.float32).ravel() for view in views])
    pixels -= pixels.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(pixels, axis=1, keepdims=True)
    return np.asarray(pixels / np.where(lengths > 0, lengths, 1), dtype=np.float32)


def compare_views(left: Array, right: Array) -> float:
    """Return the best correlation of one whole picture with a window of the other."""
    mirrored = right[0].reshape(SIDE, SIDE)[:, ::-1].ravel()
    best = max((left @ right[0]).max(), (left @ mirrored).max(), (right @ left[0]).max())
    turned = left[0].reshape(SIDE, SIDE)[:, ::-1].ravel()
    return float(max(best, (right @ turned).max()))


def choose_threshold(pairs: Indices, scores: Array, share: float) -> float:
    """Return the score from which a pair stands out from what is usual in this set.

    Where all images are alike, as scanned digits are, only what is nearly equal stands out.
    """
    return min(MOST_SCORE, 1 - share * (1 - usual_score(pairs, scores)))


def usual_score(pairs: Indices, scores: Array) -> float:
    """Return the median over the images of their second best score.

    The second best, since in a set in which every image has one copy the best says nothing.
    """
    own = np.concatenate([pairs[:, 0], pairs[:, 1]])
    both = np.concatenate([scores, scores])
    order = np.lexsort((-both, own))
    first = np.flatnonzero(np.diff(own[order], prepend=-1))
    second = first[np.diff(first, append=len(own)) > 1] + 1
    return float(np.median(both[order][second])) if len(second) else 0.0


def describe_pair(images: Images, pair: Indices, score: float, cosine: float) -> dict[str, object]:
    """Return one row of the table."""
    left, right = (int(row) for row in pair)
    labels = images.labels[left], images.labels[right]
    splits = split_of(images.keys[left]), split_of(images.keys[right])
    return {
        "image_id": images.image_ids[left],
        "key": images.keys[left],
        "label": labels[0],
        "other_image_id": images.image_ids[right],
        "other_key": images.keys[right],
        "other_label": labels[1],
        "score": score,
        "cosine": cosine,
        "across_classes": None not in labels and labels[0] != labels[1],
        "leak": None not in splits and splits[0] != splits[1],
    }


def split_of(key: str) -> str | None:
    """Return the split whose folder an image lies in: ``train``, ``val``, ``test``."""
    folders = PurePosixPath(key).parts[:-1]
    return next((SPLITS[name.lower()] for name in folders if name.lower() in SPLITS), None)
