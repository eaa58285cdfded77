"""Labels from tables and data sets, and their renaming."""

import pickle
import re
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cnnvis_ray.config import Images
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.images import Labels, open_source


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["imgBrick"] = np.zeros((3, 4, 4, 3), np.uint8)
        file["kinds"] = ["cane", "gatto", "über"]
        file["fixed"] = np.array([b"a", b"b", b"\xff"], "S3")
        file["numbers"] = np.array([7, 8, 9], np.int16)
        file["floats"] = np.array([7, 8, 9.5])
        file["short"] = [1, 2]
        file["square"] = np.zeros((3, 1), int)
    return path


def labels_of(**settings: object) -> Labels:
    config = Images.model_validate(settings)
    return open_source(config).read_labels(config)


def refusal(**settings: object) -> str:
    with pytest.raises(RefusedError) as caught:
        labels_of(**settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("dataset", "wanted"),
    [
        ("kinds", ["cane", "gatto", "über"]),
        ("fixed", ["a", "b", "\N{REPLACEMENT CHARACTER}"]),
        ("numbers", ["7", "8", "9"]),
    ],
)
def test_labels_of_a_data_set(stack: Path, dataset: str, wanted: list[str]) -> None:
    labels = pickle.loads(pickle.dumps(labels_of(source=str(stack), labels=dataset)))  # noqa: S301
    assert [labels.of(key) for key in ("0", "1", "2")] == wanted
    assert labels.of("1#4") == wanted[1]


def test_a_stack_without_a_named_data_set_has_no_labels(stack: Path) -> None:
    assert labels_of(source=str(stack)).of("0") is None
    assert labels_of(source=str(stack), labels=None).of("0") is None


@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        ("floats", "3 float64; allowed are 3 strings or whole numbers"),
        ("short", "2 int64; allowed are 3"),
        ("square", "3x1 int64; allowed are 3"),
        ("kind", "did you mean"),
        ("imgBrick", "3x4x4x3 uint8; allowed"),
    ],
)
def test_a_data_set_that_does_not_fit_is_refused(stack: Path, dataset: str, says: str) -> None:
    assert says in refusal(source=str(stack), labels=dataset)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_labels_of_a_table(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"labels{suffix}"
    rows = {"0": "zero", "2": "two", "2#1": "two again", "4": None, "ü,\n": "x"}
    if suffix == ".csv":
        body = "".join(f'"{key}",1,{label or ""}\n' for key, label in rows.items())
        path.write_text("\ufeffkey,other,label\n" + body, encoding="utf-8")
    else:
        table = {"key": list(rows), "other": [1] * 5, "label": list(rows.values())}
        pq.write_table(pa.table(table), path)
    labels = pickle.loads(pickle.dumps(labels_of(labels=str(path))))  # noqa: S301
    assert [labels.of(key) for key in ("0", "0#1", "1", "2", "2#1", "4", "ü,\n")] == [
        "zero", "zero", None, "two", "two again", None, "x",
    ]  # fmt: skip


def test_numbers_in_a_parquet_table_become_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"key": [0, 1], "label": [7, 8]}), tmp_path / "a.parquet")
    assert labels_of(labels=str(tmp_path / "a.parquet")).of("1") == "8"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b"name,class\n1,2\n", "has columns name, class; needed are key and label"),
        ("a.csv", b"", "has columns none"),
        ("a.csv", b"key,label\n1,a\n1,b\n", "two labels for key '1'"),
        ("a.csv", b"key,label\n\xff,b\n", "cannot read"),
        ("a.parquet", b"no parquet", "cannot read"),
    ],
)
def test_a_table_that_cannot_be_is_refused(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert says in refusal(labels=str(tmp_path / name))


def test_a_parquet_table_without_the_columns_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"key": ["a"]}), tmp_path / "a.parquet")
    assert "needed are key and label" in refusal(labels=str(tmp_path / "a.parquet"))


@pytest.mark.parametrize("labels", ["nowhere.csv", "nowhere.parquet"])
def test_a_missing_table_is_refused(labels: str) -> None:
    assert "No such file" in refusal(labels=labels)


def test_another_word_is_refused() -> None:
    assert "allowed are folder, null, or a .csv or .parquet table" in refusal(labels="kinds")


def test_names_from_a_yaml_file(tmp_path: Path) -> None:
    (tmp_path / "names.yaml").write_text("3: three\n'no': 'NO'\nfour: 4\n")
    labels = labels_of(label_names=str(tmp_path / "names.yaml"))
    assert labels.names == {"3": "three", "no": "NO", "four": "4"}
    assert labels.of("3") == "three"
    assert labels.of("0") == "0"


@pytest.mark.parametrize("content", ["- a\n- b\n", "a: [b]\n", "a: {b: c}\n", "a: 'b\n", ""])
def test_names_that_are_no_mapping_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "names.yaml").write_text(content)
    assert "images.label_names" in refusal(label_names=str(tmp_path / "names.yaml"))


def test_a_missing_file_of_names_is_refused() -> None:
    assert "No such file" in refusal(label_names="nowhere.yaml")


def test_a_table_about_other_images_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("key,label\n/data/a.jpg,dog\n")
    says = refusal(labels=str(path))
    assert re.search(r"names none of the images of 'digits'; .* such as '0'", says)
    path.write_text("key,label\n/data/a.jpg,dog\n1796,six\n")
    assert labels_of(labels=str(path)).of("1796") == "six"
