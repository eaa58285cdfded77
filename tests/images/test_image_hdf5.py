"""HDF5 stacks: layouts, chosen rows, reading along the chunks, and what is refused."""

import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnvis_ray.config import Images
from cnnvis_ray.errors import ImageRejectedError, RefusedError
from cnnvis_ray.images import Entry, cut, decode, images_of, open_source
from cnnvis_ray.images.hdf5 import MAX_CACHE_BYTES, Hdf5Reader, cache_for, inspect
from cnnvis_ray.images.rows import choose_rows, entries_of, keys_of, row_of

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 6, 5, 3), dtype=np.uint8)

Indices = list[int] | str | None


def stack(path: Path, pixels: np.ndarray = PIXELS, **options: object) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("imgBrick", data=pixels, **options)
    return path


def keys(path: Path, indices: Indices = None, limit: int | None = None) -> list[str]:
    source = open_source(Images(source=str(path), indices=indices, limit=limit))
    return [key for _, key, _ in images_of(source.list().entries)]


def refusal(path: Path, **settings: object) -> str:
    with pytest.raises(RefusedError) as caught:
        open_source(Images.model_validate({"source": str(path), **settings})).list()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "stored",
    [PIXELS, np.moveaxis(PIXELS, -1, 1), PIXELS[..., 0], PIXELS[..., :1], PIXELS[:, None, ..., 0]],
    ids=["N H W 3", "N 3 H W", "N H W", "N H W 1", "N 1 H W"],
)
def test_every_layout_reads_as_the_same_pixels(tmp_path: Path, stored: np.ndarray) -> None:
    source = open_source(Images(source=str(stack(tmp_path / "a.h5", stored))))
    colour = stored.ndim == 4 and 3 in (stored.shape[1], stored.shape[3])
    wanted = PIXELS[7] if colour else PIXELS[7][..., :1].repeat(3, axis=2)
    with source.open() as reader:
        assert np.array_equal(np.asarray(decode(reader.fetch("7#2"), 10**6)), wanted)


def test_where_both_ends_could_be_channels_the_last_is(tmp_path: Path) -> None:
    pixels = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    source = open_source(Images(source=str(stack(tmp_path / "a.hdf5", pixels))))
    with source.open() as reader:
        assert np.array_equal(reader.fetch("1"), pixels[1])


def test_all_rows_are_one_entry(tmp_path: Path) -> None:
    path = stack(tmp_path / "a.h5", chunks=(4, 6, 5, 3))
    listing = open_source(Images(source=str(path))).list()
    status = path.stat()
    version = f"{status.st_size}-{status.st_mtime_ns}"
    assert listing.entries == (Entry("", version, (0, 20)),)
    assert listing.chunk_rows == 4
    units = cut(listing.entries, 10, listing.chunk_rows)
    assert [unit[0].rows for unit in units] == [(0, 8), (8, 16), (16, 20)]


@pytest.mark.parametrize(
    ("indices", "limit", "wanted"),
    [
        (None, None, [str(row) for row in range(20)]),
        (None, 3, ["0", "1", "2"]),
        ("0:3", None, ["0", "1", "2"]),
        ("17:", None, ["17", "18", "19"]),
        ("::8", None, ["0", "8", "16"]),
        (" 1 : 9 : 4 ", None, ["1", "5"]),
        ("0:20", 2, ["0", "1"]),
        ([5, 3, 5, 5, 3], None, ["5", "3", "5#1", "5#2", "3#1"]),
        ([5, 3, 5, 5, 3], 3, ["5", "3", "5#1"]),
    ],
)
def test_rows_are_chosen_in_order_with_repeats(
    tmp_path: Path, indices: Indices, limit: int | None, wanted: list[str]
) -> None:
    assert keys(stack(tmp_path / "a.h5"), indices, limit) == wanted


def test_indices_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("4\n\n 2 \r\n4\n")
    assert keys(stack(tmp_path / "a.h5"), str(tmp_path / "rows.txt")) == ["4", "2", "4#1"]


@pytest.mark.parametrize(
    ("indices", "says"),
    [
        ([20], "row 20; the source has 20 rows"),
        ("0:21", "row 20"),
        ("30:", "choose none"),
        ("nowhere.txt", "neither a range like 0:2000 nor a readable file"),
    ],
)
def test_indices_that_cannot_be_are_refused(tmp_path: Path, indices: Indices, says: str) -> None:
    assert says in refusal(stack(tmp_path / "a.h5"), indices=indices)


@pytest.mark.parametrize("text", ["1\ntwo\n", "1 2\n", "1.5", "1,2,3"])
def test_a_file_of_other_than_numbers_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "rows.txt").write_text(text)
    assert "not one whole number" in refusal(
        stack(tmp_path / "a.h5"), indices=str(tmp_path / "rows.txt")
    )


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_keys_of_rows_are_unique_and_lead_back(rows: list[int]) -> None:
    names = list(keys_of(rows))
    assert len(set(names)) == len(rows)
    assert [row_of(name) for name in names] == rows


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12))
def test_entries_stand_for_the_rows_whatever_their_form(rows: list[int]) -> None:
    names = [key for _, key, _ in images_of(entries_of(rows, "v"))]
    assert [row_of(name) for name in names] == rows


@pytest.mark.parametrize("rows", [[3, 4, 5], range(3, 6)])
def test_a_contiguous_list_is_a_range(rows: list[int] | range) -> None:
    assert entries_of(rows, "v") == (Entry("", "v", (3, 6)),)


def test_many_rows_are_chosen_without_listing_them() -> None:
    assert choose_rows(None, None, 10**9) == range(10**9)
    assert len(entries_of(choose_rows("5:", None, 10**9), "v")) == 1


def test_a_wrong_key_names_what_there_is(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["imgBrik"] = PIXELS
        file["meta/labels"] = np.arange(20)
    text = refusal(tmp_path / "a.h5")
    assert "no data set 'imgBrick' in 'a.h5'" in text
    assert "imgBrik (20x6x5x3 uint8), meta/labels (20 int64)" in text
    assert "did you mean images.hdf5_dataset: imgBrik?" in text
    assert "no data set 'meta'" in refusal(tmp_path / "a.h5", hdf5_dataset="meta")


@pytest.mark.parametrize(
    "pixels",
    [
        PIXELS.astype(np.uint16),
        PIXELS.astype(np.float32),
        PIXELS[0, 0],
        PIXELS[None],
        PIXELS[..., :2],
        np.array(b"text"),
        np.uint8(3),
    ],
    ids=["uint16", "float32", "rank 2", "rank 5", "two channels", "string", "scalar"],
)
def test_a_wrong_type_or_rank_says_what_is_allowed(tmp_path: Path, pixels: np.ndarray) -> None:
    assert "allowed are uint8 pixels, N H W 3, N 3 H W or N H W" in refusal(
        stack(tmp_path / "a.h5", pixels)
    )


def test_an_empty_stack_is_refused(tmp_path: Path) -> None:
    assert "no pixels" in refusal(stack(tmp_path / "a.h5", PIXELS[:0]))


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = stack(tmp_path / "a.h5", np.tile(PIXELS, (50, 1, 1, 1)))
    path.write_bytes(path.read_bytes()[:20_000])
    assert "truncated file" in refusal(path)


@pytest.mark.parametrize("content", [b"", b"this is no HDF5", b"\x89HDF\r\n\x1a\n" + bytes(50)])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.h5").write_bytes(content)
    assert "cannot open" in refusal(tmp_path / "a.h5")


def test_an_unknown_compression_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stack(tmp_path / "a.h5", compression="gzip")
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: False)
    assert "compressed with deflate (HDF5 filter 1), which is not installed" in refusal(path)


def test_a_damaged_chunk_costs_its_rows(tmp_path: Path) -> None:
    path = stack(tmp_path / "a.h5", chunks=(10, 6, 5, 3), compression="gzip")
    with h5py.File(path) as file:
        chunk = file["imgBrick"].id.get_chunk_info(1)
    raw = bytearray(path.read_bytes())
    raw[chunk.byte_offset : chunk.byte_offset + 40] = bytes(40)
    path.write_bytes(raw)
    with open_source(Images(source=str(path))).open() as reader:
        assert np.array_equal(reader.fetch("9"), PIXELS[9])
        for key in ("10", "10", "19"):
            with pytest.raises(ImageRejectedError, match=f"row {key}") as caught:
                reader.fetch(key)
            assert caught.value.stage == "read"
        assert np.array_equal(reader.fetch("0"), PIXELS[0])


def test_a_row_that_is_gone_is_a_reject(tmp_path: Path) -> None:
    source = open_source(Images(source=str(stack(tmp_path / "a.h5"))))
    with source.open() as reader, pytest.raises(ImageRejectedError):
        reader.fetch("20")


def test_a_failing_disk_makes_no_reject(tmp_path: Path) -> None:
    path = stack(tmp_path / "a.h5")
    reader = Hdf5Reader(path, inspect(path, "imgBrick"))
    with reader, Path(os.devnull).open("wb") as unreadable:
        os.dup2(unreadable.fileno(), reader.file.id.get_vfd_handle())
        with pytest.raises(OSError, match="file read failed"):
            reader.fetch("0")


def test_threads_share_one_handle(tmp_path: Path) -> None:
    path = stack(tmp_path / "a.h5", chunks=(3, 6, 5, 3), compression="gzip")
    with open_source(Images(source=str(path))).open() as reader, ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(reader.fetch, [str(row % 20) for row in range(400)]))
    assert all(np.array_equal(pixels, PIXELS[i % 20]) for i, pixels in enumerate(rows))


def test_the_source_travels_without_a_handle_or_a_lock_on_the_file(tmp_path: Path) -> None:
    path = stack(tmp_path / "a.h5")
    source = pickle.loads(pickle.dumps(open_source(Images(source=str(path)))))  # noqa: S301
    with source.open() as reader, source.open() as other:
        assert np.array_equal(reader.fetch("3"), other.fetch("3"))


def test_identity_names_the_data_set_and_not_the_rows(tmp_path: Path) -> None:
    path = stack(tmp_path / "a.h5")
    config = Images(source=str(path), indices="0:2", limit=1, hdf5_dataset="/imgBrick")
    assert open_source(config).identity == f"hdf5:{path}:imgBrick"


def test_the_cache_holds_every_chunk_that_a_row_touches(tmp_path: Path) -> None:
    path = stack(
        tmp_path / "a.h5", np.zeros((64, 256, 256, 3), np.uint8), chunks=(16, 128, 256, 1)
    )
    chunk_bytes = 16 * 128 * 256
    assert inspect(path, "imgBrick").cache_bytes == (2 * 1 * 3 + 1) * chunk_bytes
    assert cache_for((10**6, 4096, 4096, 3), (4096, 4096, 4096, 3))[0] == MAX_CACHE_BYTES


def test_a_chunk_is_decompressed_once(tmp_path: Path) -> None:
    """A chunk of 12 MB, far above the default cache, costs its 64 rows one go and not 64."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 250, 250, 3), dtype=np.uint8)
    path = stack(tmp_path / "a.h5", pixels, chunks=pixels.shape, compression="gzip")
    with open_source(Images(source=str(path))).open() as reader:
        started = time.perf_counter()
        reader.fetch("0")
        first = time.perf_counter() - started
        for row in range(1, 64):
            reader.fetch(str(row))
        rest = time.perf_counter() - started - first
    assert rest < 20 * first
