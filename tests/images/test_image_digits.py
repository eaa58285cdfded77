"""The embedded digits."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from cnnvis_ray.config import Images
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.images import Entry, decode, images_of, open_source


def test_all_digits_are_listed_in_one_range() -> None:
    source = open_source(Images())
    listing = source.list()
    assert source.identity == "digits"
    assert listing.entries == (Entry("", "1998", (0, 1797)),)
    assert listing.num_images == len(load_digits().images)


def test_pixels_and_labels_are_scikit_learns() -> None:
    config = Images(indices=[1796, 5, 5])
    source = open_source(config)
    keys = [key for _, key, _ in images_of(source.list().entries)]
    assert keys == ["1796", "5", "5#1"]
    digits = load_digits()
    labels = source.read_labels(config)
    with source.open() as reader:
        for key, row in zip(keys, (1796, 5, 5), strict=True):
            image = np.asarray(decode(reader.fetch(key), 64)).astype(int)
            assert np.array_equal(image[..., 1], np.rint(digits.images[row] * 255 / 16))
            assert np.array_equal(image[..., 0], image[..., 2])
            assert labels.of(key) == str(digits.target[row])


def test_limit_and_bounds() -> None:
    assert open_source(Images(limit=10)).list().num_images == 10
    with pytest.raises(RefusedError, match="row 1797; the source has 1797 rows"):
        open_source(Images(indices="0:1798")).list()
