"""Parquet files of encoded images: columns, rows, shards, labels, damage, and bounded memory."""

import json
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cnnvis_ray.config import Images
from cnnvis_ray.errors import ImageRejectedError, RefusedError
from cnnvis_ray.images import (
    Entry,
    cut,
    decode,
    images_of,
    open_source,
    prepared,
)
from cnnvis_ray.images.parquet import WINDOW_ROWS, ParquetReader
from tests.images.bad_images import encoded, photo

JPEG = encoded(photo(), "JPEG")


def blobs(start: int, stop: int) -> list[bytes]:
    return [b"%06d" % number for number in range(start, stop)]


def write(path: Path, data: list[bytes | None], group: int = 10, **columns: object) -> Path:
    """Write images as Hugging Face data sets do: a struct of bytes and path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    structs = pa.array(
        [{"bytes": one, "path": f"{row}.jpg"} for row, one in enumerate(data)],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    table = pa.table({"image": structs, **columns})
    pq.write_table(table, path, row_group_size=group)
    return path


def source_of(*paths: object, **settings: object) -> Images:
    source = [str(path) for path in paths] if len(paths) > 1 else str(paths[0])
    return Images.model_validate({"source": source, **settings})


def keys(config: Images) -> list[str]:
    return [key for _, key, _ in images_of(open_source(config).list().entries)]


def refusal(config: Images) -> str:
    with pytest.raises(RefusedError) as caught:
        source = open_source(config)
        source.list()
        source.read_labels(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_is_one_entry_and_its_row_groups_are_the_chunks(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", list(blobs(0, 35)))
    listing = open_source(source_of(path)).list()
    status = path.stat()
    version = f"{status.st_size}-{status.st_mtime_ns}"
    assert listing.entries == (Entry("a.parquet/", version, (0, 35)),)
    units = cut(listing.entries, 25, listing.chunk_rows)
    assert [unit[0].rows for unit in units] == [(0, 20), (20, 35)]


def test_every_row_is_read_in_any_order_from_any_thread(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", list(blobs(0, 500)), group=150)
    write(tmp_path / "b.parquet", list(blobs(500, 700)), group=70)
    config = source_of(tmp_path / "*.parquet")
    source = pickle.loads(pickle.dumps(open_source(config)))  # noqa: S301
    wanted = keys(config)
    assert wanted[0] == "a.parquet/0"
    assert wanted[-1] == "b.parquet/199"
    random = np.random.default_rng(0).permutation(len(wanted))[:60].tolist()
    with source.open() as reader, ThreadPoolExecutor(8) as pool:
        for order in (range(len(wanted)), random, [499, 0, 300, 149, 150, 699, 0]):
            found = list(pool.map(reader.fetch, [wanted[index] for index in order]))
            assert found == [b"%06d" % index for index in order]


def test_reading_forward_reads_each_row_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.parquet", [JPEG] * 300, group=300)
    starts: list[int] = []
    build = pq.ParquetFile.iter_batches

    def counted(file: pq.ParquetFile, *arguments: object, **settings: object) -> object:
        starts.append(1)
        return build(file, *arguments, **settings)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    source = open_source(source_of(path))
    items = [(slot, key) for slot, key, _ in images_of(source.list().entries)]
    with source.open() as reader:
        for _, _, outcome in prepared(reader, items, lambda image: image.size, 10**8, 8, 64):
            assert not isinstance(outcome, ImageRejectedError)
        assert len(starts) == 1
        reader.fetch(f"a.parquet/{300 - WINDOW_ROWS}")
        assert len(starts) == 1
        reader.fetch("a.parquet/0")
        assert len(starts) == 2


@pytest.mark.parametrize(
    "column",
    [
        pa.array([JPEG], pa.binary()),
        pa.array([JPEG], pa.large_binary()),
        pa.array([JPEG], pa.binary_view()),
        pa.array([JPEG], pa.binary()).dictionary_encode(),
        pa.array([{"path": None, "bytes": JPEG}]),
    ],
    ids=["binary", "large", "view", "dictionary", "struct"],
)
def test_what_counts_as_a_column_of_images(tmp_path: Path, column: pa.Array) -> None:
    pq.write_table(pa.table({"id": [1], "picture": column}), tmp_path / "a.parquet")
    with open_source(source_of(tmp_path / "a.parquet")).open() as reader:
        assert decode(reader.fetch("a.parquet/0"), 10**8).mode == "RGB"


def test_of_several_columns_one_is_chosen_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    columns = {"mask": [b"m"], "image": [b"i"], "depth": [b"d"], "text": ["t"]}
    pq.write_table(pa.table(columns), path)
    with open_source(source_of(path)).open() as reader:
        assert reader.fetch("a.parquet/0") == b"i"
    with open_source(source_of(path, image_column="mask")).open() as reader:
        assert reader.fetch("a.parquet/0") == b"m"
    pq.write_table(pa.table({"mask": [b"m"], "depth": [b"d"]}), path)
    assert "several columns of bytes in 'a.parquet'; set images.image_column" in refusal(
        source_of(path)
    )


def test_shards_of_a_list_keep_their_order_and_of_a_glob_are_sorted(tmp_path: Path) -> None:
    for name in ("b/1.parquet", "a/1.parquet", "a/2.parquet"):
        write(tmp_path / name, list(blobs(0, 2)))
    (tmp_path / "a" / ".hidden.parquet").write_bytes(b"")
    glob = keys(source_of(tmp_path / "*" / "*.parquet"))
    assert glob == [f"{n}.parquet/{r}" for n in ("a/1", "a/2", "b/1") for r in (0, 1)]
    listed = keys(source_of(tmp_path / "b" / "1.parquet", tmp_path / "a" / "2.parquet"))
    assert listed == ["1.parquet/0", "1.parquet/1", "2.parquet/0", "2.parquet/1"]


def test_indices_count_through_all_shards(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path / f"{name}.parquet", list(blobs(0, 10)))
    paths = [tmp_path / f"{name}.parquet" for name in "abc"]

    def entries(**settings: object) -> list[tuple[str, tuple[int, int] | None]]:
        listing = open_source(source_of(*paths, **settings)).list()
        return [(entry.key, entry.rows) for entry in listing.entries]

    assert entries(indices="8:21") == [
        ("a.parquet/", (8, 10)), ("b.parquet/", (0, 10)), ("c.parquet/", (0, 1)),
    ]  # fmt: skip
    assert entries(limit=11) == [("a.parquet/", (0, 10)), ("b.parquet/", (0, 1))]
    assert keys(source_of(*paths, indices=[29, 10, 9, 10])) == [
        "c.parquet/9", "b.parquet/0", "a.parquet/9", "b.parquet/0#1",
    ]  # fmt: skip
    with open_source(source_of(*paths)).open() as reader:
        assert reader.fetch("b.parquet/7#1") == b"000007"
    assert "name row 30; the source has 30 rows" in refusal(source_of(*paths, indices=[30]))


def test_an_empty_shard_among_others_is_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [])
    write(tmp_path / "b.parquet", [JPEG])
    assert keys(source_of(tmp_path / "*.parquet")) == ["b.parquet/0"]
    assert "holds no rows" in refusal(source_of(tmp_path / "a.parquet"))


def test_labels_by_column(tmp_path: Path) -> None:
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    table = pa.table(
        {
            "image": [JPEG] * 4,
            "label": [1, 0, -1, None],
            "kind": ["x", "y", None, "z"],
            "size": [1.0] * 4,
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, tmp_path / "a.parquet")
    pq.write_table(table.slice(1), tmp_path / "b.parquet")

    def labels(**settings: object) -> list[str | None]:
        config = source_of(tmp_path / "*.parquet", **settings)
        found = pickle.loads(pickle.dumps(open_source(config).read_labels(config)))  # noqa: S301
        return [found.of(key) for key in keys(config)]

    assert labels() == ["dog", "cat", None, None, "cat", None, None]
    assert labels(labels="kind") == ["x", "y", None, "z", "y", None, "z"]
    assert labels(labels=None) == [None] * 7
    assert labels(label_names={"dog": "hound"})[0] == "hound"
    says = refusal(source_of(tmp_path / "a.parquet", labels="size"))
    assert "is not a column of strings or whole numbers in 'a.parquet'" in says
    assert says.endswith("such columns: label, kind")


def test_a_file_without_labels_has_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [JPEG])
    config = source_of(path)
    assert open_source(config).read_labels(config).of("a.parquet/0") is None


def test_rows_without_bytes_are_rejects(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [JPEG, None, b"", JPEG])
    reasons = []
    with open_source(source_of(path)).open() as reader:
        items = [(row, f"a.parquet/{row}") for row in (0, 1, 2, 3, 4)]
        for _, _, outcome in prepared(reader, items, lambda _: None, 10**8, 2, 4):
            reasons.append(str(outcome) if isinstance(outcome, ImageRejectedError) else None)
    assert reasons[0] is None
    assert reasons[3] is None
    assert reasons[1] == "the row holds no image bytes"
    assert "zero bytes" in str(reasons[2])
    assert reasons[4] == "row 4: the file has 4 rows"


def test_a_damaged_page_costs_its_row_group(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    data = [random.bytes(500) for _ in range(30)]
    path = write(tmp_path / "a.parquet", list(data))
    column = pq.read_metadata(path).row_group(1).column(0)
    raw = bytearray(path.read_bytes())
    start = column.data_page_offset
    raw[start : start + 40] = b"\xff" * 40
    path.write_bytes(raw)
    outcomes = []
    with open_source(source_of(path)).open() as reader:
        for row in range(30):
            try:
                outcomes.append(reader.fetch(f"a.parquet/{row}") == data[row])
            except ImageRejectedError as reject:
                assert "row group 1 is damaged at row 10" in str(reject)
                outcomes.append(False)
    assert outcomes == [True] * 10 + [False] * 10 + [True] * 10


def test_what_cannot_work_is_refused_in_one_line(tmp_path: Path) -> None:
    good = write(tmp_path / "good.parquet", [JPEG] * 100)
    cases = {
        "truncated": good.read_bytes()[:-20],
        "empty": b"",
        "text": b"key,label\n",
        "half": good.read_bytes()[: len(good.read_bytes()) // 2],
    }
    for name, content in cases.items():
        path = tmp_path / f"{name}.parquet"
        path.write_bytes(content)
        assert f"'{name}.parquet' is not a Parquet file or is truncated" in refusal(
            source_of(path)
        )
        path.unlink()
    pq.write_table(pa.table({"key": ["a"], "n": [1]}), tmp_path / "none.parquet")
    says = refusal(source_of(tmp_path / "none.parquet"))
    assert "'none.parquet' has no column of image bytes" in says
    assert "its columns: key (string), n (int64); allowed are binary" in says
    assert "no image bytes in 'img'" in refusal(source_of(good, image_column="img"))
    assert "none.parquet" in refusal(source_of(tmp_path / "*.parquet"))
    assert "matches no file" in refusal(source_of(tmp_path / "x*.parquet"))
    assert "it does not exist" in refusal(source_of(tmp_path / "gone.parquet"))
    assert "File name too long" in refusal(source_of(tmp_path / ("x" * 300 + ".parquet")))
    assert "two shards 'good.parquet'" in refusal(source_of(good, good))
    (tmp_path / "t.tar").write_bytes(bytes(1024))
    assert "several kinds: parquet, tar" in refusal(source_of(good, tmp_path / "t.tar"))
    stacks = source_of(tmp_path / "a.h5", tmp_path / "b.h5")
    assert "list or glob of hdf5 is not supported" in refusal(stacks)
    assert "images.labels 'none' is not a column" in refusal(source_of(good, labels="none"))


def test_a_vanished_file_is_trouble_and_no_reject(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [JPEG])
    source = open_source(source_of(path))
    path.unlink()
    with source.open() as reader, pytest.raises(FileNotFoundError):
        reader.fetch("a.parquet/0")
    with source.open() as reader, pytest.raises(ImageRejectedError, match="not have this shard"):
        reader.fetch("b.parquet/0")


def test_a_folder_whose_name_looks_like_a_pattern_is_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "photos[1]"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(JPEG)
    assert keys(source_of(folder)) == ["a.jpg"]


BOMB = """
import resource, sys
from cnnvis_ray.images.parquet import ParquetReader
from cnnvis_ray.images.shards import Shard
reader = ParquetReader((Shard("bomb.parquet", sys.argv[1]),), None)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for row in range(60):
    assert len(reader.fetch(f"bomb.parquet/{row}")) == 16 << 20
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


def test_a_file_that_expands_does_not_fill_the_memory(tmp_path: Path) -> None:
    """A thousand rows of one dictionary entry: a file of kilobytes whose rows are 16 GB."""
    rows = pa.array(np.zeros(1000, np.int32))
    column = pa.DictionaryArray.from_arrays(rows, pa.array([bytes(16 << 20)]))
    path = tmp_path / "bomb.parquet"
    pq.write_table(pa.table({"image": column}), path, compression="zstd")
    assert path.stat().st_size < 1 << 20
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", BOMB, str(path)],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert int(done.stdout) < 300  # MB; a few images of 16 MB, the window and the dictionary


def test_a_reader_opens_nothing_before_it_is_asked() -> None:
    ParquetReader((), None).close()
