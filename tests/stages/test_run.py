"""From a folder to mosaics on a real Ray: counts, passes, refusals, and what a reader finds."""

import json
import tarfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict

import h5py
import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

import cnnvis_ray
from cnnvis_ray.config import Config
from cnnvis_ray.errors import IncompleteError, RefusedError
from cnnvis_ray.ledger import Run
from cnnvis_ray.network.digits import CATEGORIES, PREPROCESS
from cnnvis_ray.stages.job import open_job
from tests.images.bad_images import make_bad_folder
from tests.stages.conftest import NETWORK, write_photos
from tests.stages.test_old_run import FIXTURE

Go = Callable[..., Run]


class Summary(TypedDict):
    images: dict[str, int]
    source: dict[str, int]
    seconds: dict[str, float]
    exit_status: int


def summary(run: Run) -> Summary:
    fields: Summary = json.loads(run.store.read("summary.json"))
    return fields


def shas(run: Run, stage: str) -> dict[str, str]:
    return {
        file.path.rsplit(".", 2)[0]: file.sha256
        for owner in run.passes(stage)
        for marker in run.ledger.markers(owner).values()
        for file in marker.files
    }


def markers(run: Run, stage: str) -> list[str]:
    """Say when each marker was written."""
    folder = Path(run.store.path("passes"))
    return sorted(f"{p} {p.stat().st_mtime_ns}" for p in folder.glob(f"{stage}-*/done/*"))


@pytest.mark.cluster
def test_from_photos_to_mosaics(tmp_path: Path, ray_run: Go) -> None:
    write_photos(tmp_path / "photos", 40)
    done = ray_run()
    assert done.layers() == ["features.0", "features.5"]
    assert done.images().num_rows == 40
    for layer in done.layers():
        keys, features = cnnvis_ray.open_run(done.store.root).features(layer)
        assert len(keys) == len(features) == 40
        assert features.dtype == np.float16
        table = done.embedding(layer)
        assert sorted(table["key"].to_pylist()) == sorted(keys)
        assert set(table["label"].to_pylist()) == {"cane", "gatto", "mucca"}
        assert set(table["image"].to_pylist()[0]) == {"bytes", "path"}
        assert done.statistics(layer).num_rows == features.shape[1]
        for layout in ("scatter", "grid"):
            with Image.open(done.store.path(f"mosaic/{layer}-{layout}.png")) as picture:
                assert picture.size == (400, 300)
                assert np.asarray(picture).std() > 10
    told = summary(done)
    assert told["images"] == {"listed": 40, "rows": 40, "rejects": 0, "missing": 0}
    assert told["exit_status"] == 0
    assert set(told["seconds"]) >= {"extract", "reduce", "mosaic"}


def test_a_finished_run_does_nothing_again(tmp_path: Path, run: Go) -> None:
    write_photos(tmp_path / "photos", 20)
    first = run()
    before = [markers(first, stage) for stage in ("images", "extract", "reduce", "mosaic")]
    second = run("cluster.workers=2")
    assert [markers(second, s) for s in ("images", "extract", "reduce", "mosaic")] == before


@pytest.mark.cluster
@pytest.mark.slow
def test_one_worker_and_three_write_the_same_bytes(tmp_path: Path, ray_run: Go) -> None:
    write_photos(tmp_path / "photos", 60)
    (tmp_path / "photos" / "cane" / "0000.png").write_bytes(b"broken")
    one = ray_run(verb="extract")
    three = ray_run(f"run_dir={tmp_path / 'three'}", "cluster.workers=3", verb="extract")
    assert len(shas(one, "extract")) == 4 * 2 * 2
    assert shas(one, "extract") == shas(three, "extract")
    assert shas(one, "images") == shas(three, "images")
    for layer in one.layers():
        assert one.statistics(layer).equals(three.statistics(layer))


def test_every_bad_image_becomes_a_row_or_a_reject(tmp_path: Path, run: Go) -> None:
    expected = make_bad_folder(tmp_path / "photos")
    bad = {key: stage for key, stage in expected.items() if stage is not None}
    with pytest.raises(IncompleteError, match="max_reject_fraction"):
        run()
    done = cnnvis_ray.open_run(str(tmp_path / "run"))
    rejects = done.rejects().to_pylist()
    assert {reject["key"]: reject["stage"] for reject in rejects} == bad
    assert all(reject["error"] for reject in rejects)
    assert sorted(done.images()["key"].to_pylist()) == sorted(expected.keys() - bad.keys())
    told = summary(done)
    assert told["images"]["listed"] == len(expected)
    assert told["images"]["missing"] == 0
    assert told["exit_status"] == 1
    whole = run("images.max_reject_fraction=1")
    assert whole.embedding("features.5").num_rows == len(expected) - len(bad)


def test_a_unit_that_was_not_finished_is_done_again(tmp_path: Path, run: Go) -> None:
    write_photos(tmp_path / "photos", 40)
    whole = run(verb="extract")
    before = shas(whole, "extract")
    (owner,) = whole.passes("extract")
    whole.store.delete([f"passes/{owner.name}/done/000001.r0.json"])
    for file in whole.store.files("channels/features.5"):
        if "000001" in file:
            whole.store.delete([file])
    again = run(verb="extract")
    assert shas(again, "extract") == before
    units = [path for path in again.store.files("features/features.5") if "000001" in path]
    assert len(units) == 1  # the leftover of the first attempt is swept


def test_a_changed_recipe_is_refused_and_replaced_when_asked(tmp_path: Path, run: Go) -> None:
    write_photos(tmp_path / "photos", 20)
    run()
    with pytest.raises(RefusedError, match=r"extract\.pooling was mean, is max"):
        run("extract.pooling=max")
    with pytest.raises(RefusedError, match=r"reduce\.perplexity was 30"):
        run("reduce.perplexity=5")
    replaced = run("extract.pooling=max", replace=["extract"])
    assert {owner.recipe["extract.pooling"] for owner in replaced.passes("extract")} == {"max"}
    assert replaced.embedding("features.5").num_rows == 20


def test_another_unit_size_cuts_anew(tmp_path: Path, run: Go) -> None:
    write_photos(tmp_path / "photos", 20)
    run(verb="extract")
    with pytest.raises(RefusedError, match=r"images\.unit_size was 16, is 8"):
        run("images.unit_size=8", verb="extract")
    done = run("images.unit_size=8", verb="extract", replace=["extract"])
    assert len(set(done.images()["image_id"].to_pylist())) == 20
    assert len(done.files("images", "images")) == 3


def test_another_run_is_refused(tmp_path: Path, run: Go) -> None:
    write_photos(tmp_path / "photos", 20)
    run(verb="extract")
    with pytest.raises(RefusedError, match=r"network\.weights"):
        run("seed=1", verb="extract")


def test_a_grown_source_costs_what_changed(tmp_path: Path, run: Go) -> None:
    write_photos(tmp_path / "photos", 40)
    first = run(verb="extract")
    before = shas(first, "extract")
    write_photos(tmp_path / "more", 44)
    for path in (tmp_path / "more").rglob("04[0-3].png"):
        path.rename(tmp_path / "photos" / path.relative_to(tmp_path / "more"))
    gone = sorted((tmp_path / "photos").rglob("*.png"))[0]
    gone.unlink()
    second = run(verb="extract")
    after = shas(second, "extract")
    assert summary(second)["source"] == {"new": 4, "gone": 1, "changed": 0}
    assert second.images().num_rows == 43
    kept = {name for name in before if after.get(name) == before[name]}
    assert {name.split("/")[-1] for name in kept} == {"000001.r0", "000002.r0"}
    assert {name.split("/")[-1] for name in after} == {
        "000000.r1",
        "000001.r0",
        "000002.r0",
        "000003.r0",
    }


def test_renamed_classes_cost_a_join(tmp_path: Path, run: Go) -> None:
    write_photos(tmp_path / "photos", 20)
    first = run()
    before = markers(first, "reduce"), markers(first, "extract")
    second = run("images.label_names={cane: dog, gatto: cat}")
    assert set(second.embedding("features.5")["label"].to_pylist()) == {"dog", "cat", "mucca"}
    assert (markers(second, "reduce"), markers(second, "extract")) == before


def test_an_hdf5_stack_with_repeats(tmp_path: Path, run: Go) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 20, 24, 3), dtype=np.uint8)
    with h5py.File(tmp_path / "stack.h5", "w") as file:
        file.create_dataset("imgBrick", data=pixels, chunks=(8, 20, 24, 3))
    done = run(
        f"images.source={tmp_path / 'stack.h5'}", "images.indices=[3, 7, 3]", verb="extract"
    )
    keys, features = done.features("features.5")
    assert keys == ["3", "7", "3#1"]
    np.testing.assert_array_equal(features[0], features[2])
    assert not np.array_equal(features[0], features[1])
    with pytest.raises(RefusedError, match="at least 5"):
        run(f"images.source={tmp_path / 'stack.h5'}", "images.indices=[3, 7, 3]")


def test_a_map_of_few_images_adapts(
    tmp_path: Path, run: Go, caplog: pytest.LogCaptureFixture
) -> None:
    write_photos(tmp_path / "photos", 5)
    with caplog.at_level("INFO", "cnnvis_ray"):
        done = run()
    assert done.embedding("features.5").num_rows == 5
    assert any("perplexity" in record.getMessage() for record in caplog.records)


def test_all_refusals_at_once_before_ray(
    tmp_path: Path, configured: Callable[..., Config]
) -> None:
    with pytest.raises(RefusedError) as refused:
        open_job(
            configured(f"images.source={tmp_path / 'nowhere'}", "layers=[features.99, featurs.0]"),
            ("extract",),
        )
    source, *layers = str(refused.value).splitlines()
    assert "nowhere" in source
    assert any("features.99" in line for line in layers)
    assert any("featurs.0" in line for line in layers)
    assert not (tmp_path / "run").exists()


def test_predictions_stand_beside_the_images(tmp_path: Path, run: Go) -> None:
    with tarfile.open(FIXTURE) as archive:
        archive.extract("old/weights.safetensors", tmp_path, filter="data")
    weights = tmp_path / "named.safetensors"
    metadata = {"preprocess": json.dumps(asdict(PREPROCESS)), "categories": json.dumps(CATEGORIES)}
    save_file(load_file(tmp_path / "old" / "weights.safetensors"), weights, metadata)
    done = run(
        "images.source=digits",
        "images.limit=60",
        f"network={{name: 'cnnvis_ray.network.digits:digits_vgg', weights: {weights}}}",
        "layers=[block3]",
        verb="extract",
    )
    rows = done.images().to_pylist()
    right = sum(row["top5"][0]["name"] == row["label"] for row in rows)
    assert right >= 55
    assert all(abs(sum(g["probability"] for g in row["top5"]) - 1) < 0.2 for row in rows)
    assert [len(row["top5"]) for row in rows] == [5] * 60


def test_predictions_that_cannot_be_are_refused(
    tmp_path: Path, configured: Callable[..., Config]
) -> None:
    write_photos(tmp_path / "photos", 5)
    with pytest.raises(RefusedError, match=r"extract\.predictions"):
        open_job(configured("extract.predictions=true", NETWORK), ("extract",))
