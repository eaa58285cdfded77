"""Lack of memory: raised where the machine lacks it, a reject where the image asks too much."""

import io
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFile

from cnnvis_ray.config import Images
from cnnvis_ray.errors import ImageRejectedError
from cnnvis_ray.images import decode, open_source, thumbnail
from cnnvis_ray.images.parquet import Group
from tests.images.bad_images import encoded, oriented, photo

JPEG = encoded(photo(), "JPEG")


def fail_with(*failures: Exception) -> Callable[..., object]:
    """Return a function that raises each failure once, and then the last."""
    left = list(failures)

    def fail(*_: object, **__: object) -> object:
        raise left.pop(0) if len(left) > 1 else left[0]

    return fail


OUT = [MemoryError(), OSError("out of memory error when reading image file (1 byte)")]


@pytest.mark.parametrize("failure", OUT, ids=["PIL", "decoder"])
def test_a_machine_without_memory_makes_no_reject(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", fail_with(failure))
    monkeypatch.setattr(np, "empty", fail_with(MemoryError()))
    with pytest.raises(MemoryError, match="no memory for an image that needs up to"):
        decode(JPEG, 10**8)


def test_memory_that_comes_back_makes_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    load, calls = ImageFile.ImageFile.load, iter([True])

    def fail_once(image: ImageFile.ImageFile) -> object:
        if next(calls, False):
            raise MemoryError
        return load(image)

    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.load", fail_once)
    assert decode(JPEG, 10**8).size == (48, 32)


def test_an_image_that_requests_more_than_its_pixels_need_is_a_reject(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.load", fail_with(MemoryError()))
    with pytest.raises(ImageRejectedError, match="more memory than its 1,536 pixels need"):
        decode(JPEG, 10**8)


def test_lack_of_memory_never_leaves_a_picture_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "getexif", fail_with(MemoryError()))
    monkeypatch.setattr(np, "empty", fail_with(MemoryError()))
    with pytest.raises(MemoryError):
        decode(oriented(photo(), 6), 10**8)


class Dataset:
    def __init__(self, failure: Exception) -> None:
        self.failure = failure

    def __getitem__(self, row: int) -> np.ndarray:
        raise self.failure


@pytest.mark.parametrize(("free", "expected"), [(True, ImageRejectedError), (False, MemoryError)])
def test_memory_for_a_stacks_chunk(
    tmp_path: Path, free: bool, expected: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["imgBrick"] = np.zeros((2, 4, 4, 3), np.uint8)
    with open_source(Images(source=str(tmp_path / "a.h5"))).open() as reader:
        failure = OSError("Can't synchronously read data (memory allocation failed for chunk)")
        monkeypatch.setattr(reader, "dataset", Dataset(failure))
        if not free:
            monkeypatch.setattr(np, "empty", fail_with(MemoryError()))
        with pytest.raises(expected):
            reader.fetch("0")


@pytest.mark.parametrize(("free", "expected"), [(True, ImageRejectedError), (False, MemoryError)])
def test_memory_for_a_row_group(
    tmp_path: Path, free: bool, expected: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.table({"image": [JPEG] * 3}), tmp_path / "a.parquet")

    def read(group: Group, row: int) -> bytes | None:
        failure = pa.ArrowMemoryError("malloc of size 5 failed")
        group.batches = map(fail_with(failure), [0])
        return original(group, row)

    original = Group.read
    with open_source(Images(source=str(tmp_path / "a.parquet"))).open() as reader:
        with monkeypatch.context() as patched:
            patched.setattr(Group, "read", read)
            if not free:
                patched.setattr(np, "empty", fail_with(MemoryError()))
            with pytest.raises(expected):
                reader.fetch("a.parquet/0")
        assert reader.fetch("a.parquet/1") == JPEG


def test_a_store_that_failed_in_a_row_group_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.table({"image": [JPEG] * 3}), tmp_path / "a.parquet")
    with open_source(Images(source=str(tmp_path / "a.parquet"))).open() as reader:
        with monkeypatch.context() as patched:
            patched.setattr(Group, "advance", fail_with(ConnectionError("gone")))
            with pytest.raises(ConnectionError):
                reader.fetch("a.parquet/0")
        assert reader.fetch("a.parquet/0") == JPEG


@pytest.mark.parametrize("size", [(1, 1_000_000), (65_000, 2)])
def test_the_thumbnail_of_a_very_long_image_is_small(size: tuple[int, int]) -> None:
    buffer = io.BytesIO()
    Image.new("L", size).save(buffer, "PNG")
    image = decode(buffer.getvalue(), 10**8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert max(Image.open(io.BytesIO(thumbnail(image, 128))).size) == 128
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10


LIMITED = """
import io, resource
from PIL import Image
from cnnvis_ray.images import decode
buffer = io.BytesIO()
Image.new("L", (9000, 9000)).save(buffer, "PNG", compress_level=1)
with open("/proc/self/statm") as file:
    now = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (120 << 20), resource.RLIM_INFINITY))
try:
    decode(buffer.getvalue(), 10**8)
except MemoryError as failure:
    print(failure)
"""


def test_a_real_limit_of_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "no memory for an image that needs up to" in done.stdout
