"""Nights on a frozen map, and the audit: what they write, and that the run stays as it is."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cnnvis_ray import ledger
from cnnvis_ray.errors import HeldError, IncompleteError, RefusedError
from cnnvis_ray.ledger import open_run
from cnnvis_ray.stages import changes
from cnnvis_ray.stages.audit import audit
from cnnvis_ray.stages.place import place
from cnnvis_ray.stages.verify import verify
from cnnvis_ray.storage import Store
from tests.stages.conftest import without_ray, write_photos
from tests.stages.tiny import contents, go, tiny

PICTURES = {"cells", "channels", "predictions", "strangest", "trends"}
TABLES = {"cells", "channels", "duplicates", "novelty", "predictions", "tops"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with maps of 54 photos."""
    folder = tmp_path_factory.mktemp("nights")
    write_photos(folder / "photos", 54)
    with pytest.MonkeyPatch.context() as patch:
        without_ray(patch)
        go(folder)
    return folder


@pytest.fixture
def mapped(made: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The run, and an empty folder for a night's photos."""
    without_ray(monkeypatch)
    yield made
    for name in ("night", "run/placed"):
        shutil.rmtree(made / name, ignore_errors=True)


def put(folder: Path, *sets: str, name: str = "one", run: str = "run") -> list[str]:
    """Place FOLDER/night."""
    return place(str(folder / run), tiny(folder, *sets, run=run), str(folder / "night"), name)


def read(folder: Path, name: str = "one", run: str = "run") -> dict[str, object]:
    """Read what a night wrote."""
    text = (folder / run / "placed" / name / "changes.json").read_text()
    return cast("dict[str, object]", json.loads(text))


def rows(folder: Path, path: str) -> list[dict[str, object]]:
    """Read a table of the night."""
    return pq.read_table(folder / "run/placed/one" / path).to_pylist()  # type: ignore[no-any-return]


def test_a_night_is_placed_once_and_moves_nothing(mapped: Path) -> None:
    run = mapped / "run"
    write_photos(mapped / "night", 59, first=54)
    before = contents(run)
    for _ in range(2):
        assert put(mapped)[0].startswith("verdict   not judged")  # five images are too few
    after = contents(run)
    assert {path: after[path] for path in before} == before
    assert read(mapped)["arrived"] == {"images": 5, "rejects": 0, "reasons": {}}
    placed = open_run(str(run / "placed/one")).table("embedding/features.1.parquet")
    assert placed.num_rows == len(set(placed["key"].to_pylist())) == 5
    assert verify(str(run), False)[1].startswith(str(run / "placed/one"))


@pytest.mark.slow
def test_what_a_night_writes(mapped: Path) -> None:
    write_photos(mapped / "night", 66, first=54)
    for index, name in enumerate(("cane/000.png", "gatto/001.png")):
        (mapped / "night/emu").mkdir(exist_ok=True)
        shutil.copy(mapped / "photos" / name, mapped / f"night/emu/again{index}.png")
    (mapped / "night/text.jpg").write_text("not an image")
    put(mapped)
    found = read(mapped)
    assert found["verdict"] in ("changed", "unchanged") and found["false_alarm_rate"] == 0.01
    arrived = cast("dict[str, object]", found["arrived"])
    assert (arrived["images"], arrived["rejects"]) == (14, 1)
    classes = cast("dict[str, dict[str, object]]", found["classes"])
    assert classes["unknown"] == {"emu": 2}
    known = {(row["key"], row["known_key"]) for row in rows(mapped, "changes/duplicates.parquet")}
    again = {("emu/again0.png", "cane/000.png"), ("emu/again1.png", "gatto/001.png")}
    assert known >= again
    assert cast("dict[str, int]", found["duplicates"])["images"] == len({key for key, _ in known})
    assert len(rows(mapped, "changes/novelty.parquet")) == 14
    counts = {row["name"]: row for row in rows(mapped, "changes/predictions.parquet")}
    assert counts["emu"] == {
        "kind": "label", "name": "emu", "images": 2, "expected": 0.0, "known": False,
    }  # fmt: skip
    folder = mapped / "run/placed/one/changes"
    assert {path.stem for path in folder.glob("*.parquet")} == TABLES
    assert {path.stem for path in folder.glob("*.png")} >= {*PICTURES, "duplicates"}
    trends = cast("dict[str, object]", found["trends"])
    assert trends["nights"] == ["one"]


@pytest.mark.slow
def test_a_broken_night_ends_with_1_where_asked(mapped: Path) -> None:
    for index in range(12):
        path = mapped / "night" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        noise = np.random.default_rng(index).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    for _ in range(2):
        with pytest.raises(IncompleteError, match="the verdict on one is 'changed'"):
            put(mapped, "place.fail_on=changed")
    found = read(mapped)
    layers = cast("list[dict[str, object]]", found["layers"])
    assert found["verdict"] == "changed" and layers[0]["changed"]
    assert put(mapped)[0] == "verdict   changed"


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 9])
def test_a_night_of_few_images_is_placed_and_not_judged(mapped: Path, count: int) -> None:
    write_photos(mapped / "night", 54 + count, first=54)
    put(mapped)
    found = read(mapped)
    assert found["verdict"] == "not judged"
    assert found["reason"] == f"{count} images in the night, at least 10 are needed"
    assert len(rows(mapped, "embedding/features.1.parquet")) == count
    with pytest.raises(IncompleteError, match="'not judged'"):
        put(mapped, "place.fail_on=not judged")


def test_a_night_of_rejects_alone_is_not_judged(mapped: Path) -> None:
    (mapped / "night").mkdir()
    for index in range(12):
        (mapped / "night" / f"{index}.jpg").write_text("not an image")
    lines = put(mapped)
    assert lines[0] == "verdict   not judged (no image of the night can be used)"
    found = read(mapped)
    assert cast("dict[str, object]", found["arrived"])["rejects"] == 12
    assert found["novelty"] is None and found["layers"] == [] and found["new_tops"] == []
    folder = mapped / "run/placed/one/changes"
    assert {path.stem for path in folder.glob("*.parquet")} == TABLES
    assert rows(mapped, "changes/novelty.parquet") == []


def test_a_night_of_no_image_is_refused(mapped: Path) -> None:
    (mapped / "night").mkdir()
    before = contents(mapped / "run")
    with pytest.raises(RefusedError, match="no image"):
        put(mapped)
    assert {path for path in contents(mapped / "run") if path not in before} <= {"placed"}


@pytest.mark.slow
def test_images_of_other_sizes_and_kinds_are_placed(mapped: Path) -> None:
    (mapped / "night").mkdir()
    sizes = {"L": (9, 200), "RGBA": (300, 40), "P": (64, 64), "1": (33, 50), "CMYK": (80, 60)}
    for index, (mode, size) in enumerate(sizes.items()):
        kind = "tiff" if mode == "CMYK" else "png"
        noise = np.random.default_rng(index).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(noise).convert(mode).save(mapped / "night" / f"{mode}.{kind}")
    put(mapped)
    assert len(rows(mapped, "embedding/features.1.parquet")) == 5


@pytest.mark.slow
def test_nights_of_the_run_s_own_source_have_what_is_new(mapped: Path) -> None:
    photos = str(mapped / "photos")
    lines = place(str(mapped / "run"), tiny(mapped), photos, "same")
    assert lines[0].startswith(f"nothing new in {photos}: every image is in the run")
    try:
        for name, first, last in (("one", 54, 57), ("two", 57, 61)):
            write_photos(mapped / "photos", last, first=first)
            place(str(mapped / "run"), tiny(mapped), photos, name)
        counts = [cast("dict[str, int]", read(mapped, name)["arrived"]) for name in ("one", "two")]
        assert [count["images"] for count in counts] == [3, 4]
        place(str(mapped / "run"), tiny(mapped), photos, "one")
        assert len(rows(mapped, "embedding/features.1.parquet")) == 3
        assert cast("dict[str, object]", read(mapped, "two")["trends"])["nights"] == ["one", "two"]
    finally:
        for path in (mapped / "photos").glob("*/*.png"):
            if int(path.stem) >= 54:
                path.unlink()


@pytest.mark.parametrize(
    ("sets", "name", "part"),
    [
        ((), "../out", "is not a name"),
        (("extract.pooling=max",), "one", "extract.pooling was mean, is max"),
        (("network.preprocess.resize=40",), "one", "preprocess"),
        (("network.name=tests.faults.networks:slow",), "one", "network"),
    ],
)
def test_a_night_is_refused(mapped: Path, sets: tuple[str, ...], name: str, part: str) -> None:
    write_photos(mapped / "night", 56, first=54)
    before = contents(mapped)
    with pytest.raises(RefusedError, match=part):
        put(mapped, *sets, name=name)
    after = contents(mapped)
    assert {path for path in after if path not in before} <= {"run/placed"}


@pytest.mark.slow
def test_a_run_without_a_map_is_refused_and_one_without_statistics_is_not(mapped: Path) -> None:
    write_photos(mapped / "night", 66, first=54)
    for name, gone in (
        ("bare", ["reduction", "passes/reduce*"]),
        ("plain", ["channels/*.parquet"]),
    ):
        shutil.copytree(mapped / "run", mapped / name)
        for pattern in gone:
            for path in (mapped / name).glob(pattern):
                path.unlink() if path.is_file() else shutil.rmtree(path)
    with pytest.raises(RefusedError, match="has no map; first: cnnvis reduce"):
        put(mapped, run="bare")
    put(mapped, run="plain")
    found = read(mapped, run="plain")
    assert found["verdict"] != "not judged" and found["new_tops"] == []


@pytest.mark.slow
def test_a_night_is_placed_by_one_driver_at_a_time(mapped: Path) -> None:
    write_photos(mapped / "night", 56, first=54)
    with ledger.hold(Store(str(mapped / "run/placed/one"))):
        with pytest.raises(HeldError):
            put(mapped)
        put(mapped, name="two")  # another night is another run
    put(mapped)
    assert read(mapped)["arrived"] == read(mapped, "two")["arrived"]


@pytest.mark.slow
def test_a_night_that_was_killed_half_way_is_finished(
    mapped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photos(mapped / "night", 66, first=54)

    def die(*values: object) -> None:
        raise SystemExit(1)

    with monkeypatch.context() as patch:
        patch.setattr(changes, "judge", die)
        with pytest.raises(SystemExit):
            put(mapped)
    assert not (mapped / "run/placed/one/changes.json").exists()
    put(mapped)
    put(mapped, name="two")
    one, two = (read(mapped, name) for name in ("one", "two"))
    for found in (one, two):
        del found["trends"]
    assert one == two
    tables = [
        pq.read_table(mapped / f"run/placed/{name}/embedding/features.1.parquet")
        for name in ("one", "two")
    ]
    assert tables[0].equals(tables[1]) and tables[0].num_rows == 12


def test_an_audit_is_made_once(mapped: Path) -> None:
    run = mapped / "run"
    audit(str(run))
    found = json.loads((run / "audit/audit.json").read_text())
    assert (found["layer"], found["images"]) == ("features.1", 54)
    before = contents(run)
    audit(str(run))
    assert contents(run) == before
    with pytest.raises(RefusedError, match=r"features\.1"):
        audit(str(run), "features.11")


@pytest.mark.slow
def test_an_audit_without_labels_judges_what_needs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_ray(monkeypatch)
    for split, name in (("train", "cane"), ("test", "gatto")):
        write_photos(tmp_path / "made", 30)
        shutil.copytree(tmp_path / "made" / name, tmp_path / "photos" / split)
    shutil.copy(tmp_path / "photos/train/003.png", tmp_path / "photos/test/leak.png")
    go(tmp_path, "images.labels=null", verb="extract")
    audit(str(tmp_path / "run"))
    table = pq.read_table(tmp_path / "run/audit/duplicates.parquet").to_pylist()
    leaks = {(row["key"], row["other_key"]) for row in table if row["leak"]}
    assert leaks == {("test/leak.png", "train/003.png")}
    found = json.loads((tmp_path / "run/audit/audit.json").read_text())
    assert found["found"]["labels"] == found["found"]["classes"] == 0
    assert found["label_calibration"] is None
