"""What extraction writes equals a plain torchvision loop, whoever shares a batch."""

import os
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from cnnvis_ray.errors import CnnvisError
from cnnvis_ray.ledger import Run
from cnnvis_ray.network import build_module
from cnnvis_ray.stages.extract import merge_statistics
from tests.extraction.conftest import (
    Extract,
    configure,
    digests,
    extract_here,
    write_images,
)

LAYERS = ("features.0", "features.5")


def reference(run: Run, module: torch.nn.Module, folder: Path, depth: int) -> np.ndarray:
    """Extract mean-pooled features as a ten-line script would."""
    preprocess = v2.Compose(
        [v2.Resize(72), v2.CenterCrop(64), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    )
    rows = []
    trunk = module.get_submodule("features")
    assert isinstance(trunk, torch.nn.Sequential)
    for key in run.images(["key"])["key"].to_pylist():
        with Image.open(folder / key) as image, torch.inference_mode():
            batch = preprocess(image.convert("RGB"))[None]
            rows.append(trunk[: depth + 1](batch).mean((2, 3))[0].numpy())
    return np.stack(rows)


def test_features_equal_a_plain_loop(tmp_path: Path, extract: Extract) -> None:
    write_images(tmp_path / "photos", 45)
    job = extract()
    run = Run(job.store)
    for layer, depth in zip(LAYERS, (0, 5), strict=True):
        expected = reference(run, build_module(job.vision.network), tmp_path / "photos", depth)
        keys, features = run.features(layer)
        assert len(keys) == 45
        assert np.abs(features - expected).max() <= 1e-4 * np.abs(expected).max()
    assert run.features("features.0")[1].min() < 0  # the in-place ReLU after it is not seen


@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_another_batch_size_changes_nothing_that_matters(tmp_path: Path, batch_size: int) -> None:
    write_images(tmp_path / "photos", 45)
    first = Run(extract_here(configure(tmp_path))[0].store)
    sets = (f"run_dir={tmp_path / 'other'}", f"extract.batch_size={batch_size}")
    second = Run(extract_here(configure(tmp_path, *sets))[0].store)
    for layer in LAYERS:
        keys, features = first.features(layer)
        other_keys, others = second.features(layer)
        assert other_keys == keys
        assert np.abs(others - features).max() <= 1e-3 * np.abs(features).max()


def test_a_reject_changes_no_byte_of_its_neighbours(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 45)
    whole = Run(extract_here(configure(tmp_path))[0].store)
    bad = sorted((tmp_path / "photos").rglob("*.png"))[3:40:5]
    for path in bad:
        path.write_bytes(b"no image")
    job, reports = extract_here(configure(tmp_path, f"run_dir={tmp_path / 'other'}"))
    rest = Run(job.store)
    assert sum(report.rejects for report in reports) == len(bad)
    assert sum(report.rows for report in reports) == 45 - len(bad)
    rejected = {str(path.relative_to(tmp_path / "photos")) for path in bad}
    assert set(rest.rejects()["key"].to_pylist()) == rejected
    for layer in LAYERS:
        keys, features = whole.features(layer)
        kept = [index for index, key in enumerate(keys) if key not in rejected]
        np.testing.assert_array_equal(rest.features(layer)[1], features[kept])


def test_the_same_work_gives_the_same_bytes(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 25)
    first = digests(extract_here(configure(tmp_path))[0], "extract")
    second = digests(
        extract_here(configure(tmp_path, f"run_dir={tmp_path / 'other'}"))[0], "extract"
    )
    assert len(first) == 2 * 2 * 2  # units, layers, features and statistics
    assert first == second


def test_a_source_of_nothing_but_bad_images(tmp_path: Path, extract: Extract) -> None:
    write_images(tmp_path / "photos", 25)
    good = Run(extract().store)
    for path in (tmp_path / "photos").rglob("*.png"):
        path.write_bytes(b"")
    job, reports = extract_here(configure(tmp_path, f"run_dir={tmp_path / 'other'}"))
    bad = Run(job.store)
    assert [report.rows for report in reports] == [0, 0]
    assert bad.rejects().num_rows == 25
    assert set(bad.rejects()["stage"].to_pylist()) == {"decode"}
    for stage, folder in (
        ("images", "images"),
        ("images", "rejects"),
        ("extract", "features/features.5"),
        ("extract", "channels/features.5"),
    ):
        schemas = [
            pq.read_schema(run.store.path(run.files(stage, folder)[0].path)) for run in (good, bad)
        ]
        assert schemas[0].equals(schemas[1], check_metadata=True)


def test_the_exact_files_of_a_run(tmp_path: Path, extract: Extract) -> None:
    write_images(tmp_path / "photos", 25)
    job = extract()
    names = {
        re.sub(r"\.[0-9a-f]{8}\.parquet$", ".parquet", path)
        for path in job.store.files("")
        if not path.startswith("passes/")
    }
    folders = [
        "images",
        "rejects",
        *(f"{k}/{x}" for k in ("features", "channels") for x in LAYERS),
    ]
    units = {f"{folder}/00000{unit}.r0.parquet" for folder in folders for unit in (0, 1)}
    assert names == units | {"config.yaml", "run.json", "plan/000000.parquet", "labels.parquet"}
    assert (
        sum(path.startswith("passes/") for path in job.store.files("")) == 2 * (1 + 2) + 2
    )  # and of labels


def test_an_added_layer_costs_itself(tmp_path: Path, extract: Extract) -> None:
    write_images(tmp_path / "photos", 25)
    (tmp_path / "photos" / "class0" / "bad.png").write_bytes(b"?")
    before = digests(extract(), "extract") | digests(extract(), "images")
    _, reports = extract_here(configure(tmp_path, "layers=[features.0, features.5, features.8]"))
    assert len(reports) == 2
    job, reports = extract_here(configure(tmp_path, "layers=[features.8, features.0]"))
    assert reports == []
    after = digests(job, "extract") | digests(job, "images")
    assert {name: after[name] for name in before} == before
    assert {name.split("/")[1] for name in after.keys() - before.keys()} == {"features.8"}
    run = Run(job.store)
    assert run.features("features.8")[0] == run.features("features.0")[0]
    assert run.rejects()["key"].to_pylist() == ["class0/bad.png"]


def test_an_image_that_broke_since_is_told(tmp_path: Path, extract: Extract) -> None:
    write_images(tmp_path / "photos", 5)
    extract()
    path = tmp_path / "photos" / "class0" / "000.png"
    stat, size = path.stat(), len(path.read_bytes())
    path.write_bytes(b"\0" * size)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(CnnvisError, match=r"class0/000\.png.*was usable"):
        extract("layers=[features.0, features.8]")


def test_values_that_the_dtype_cannot_hold_are_told(tmp_path: Path, extract: Extract) -> None:
    write_images(tmp_path / "photos", 5)
    huge = (
        "network={name: squeezenet1_1, weights: random,"
        " preprocess: {resize: 72, crop: 64, std: [1.0e-7, 1.0e-7, 1.0e-7]}}"
    )
    with pytest.raises(CnnvisError, match=r"float16.*class0/000\.png"):
        extract(huge, "extract.dtype=float16", "extract.pooling=max")


def test_statistics_agree_with_features(tmp_path: Path, extract: Extract) -> None:
    write_images(tmp_path / "photos", 45)
    job = extract("layers=[features.5]")
    merge_statistics(job.ledger, "features.5", 9)
    run = Run(job.store)
    table, (keys, features) = run.statistics("features.5"), run.features("features.5")
    np.testing.assert_allclose(table["mean"].to_numpy(), features.mean(0, np.float64), rtol=1e-6)
    np.testing.assert_allclose(
        table["variance"].to_numpy(), features.var(0, dtype=np.float64), rtol=1e-4, atol=1e-12
    )
    best = table["exemplars"].to_pylist()[7]
    assert len(best) == 9
    assert best[0]["key"] in keys
    assert best == sorted(best, key=lambda entry: (-entry["value"], entry["key"]))


def test_bfloat16_is_computed_and_stays_near_float32(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 25)
    exact = Run(extract_here(configure(tmp_path))[0].store)
    sets = (f"run_dir={tmp_path / 'other'}", "extract.precision=bfloat16")
    rounded = Run(extract_here(configure(tmp_path, *sets))[0].store)
    for layer in LAYERS:
        (keys, features), (others, near) = exact.features(layer), rounded.features(layer)
        assert others == keys
        difference = np.abs(near - features).max() / np.abs(features).max()
        assert 1e-6 < difference < 0.02  # zero would be float32 under another name
