"""One dict of sources: a new kind, absolute places, labels as a method, run directories."""

import logging
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cnnvis_ray.config import Images
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.images import (
    SOURCES,
    Entry,
    Listing,
    Reader,
    Source,
    absolute_source,
    is_same_source,
    open_source,
)
from cnnvis_ray.images.opening import SourceKind, has_suffix
from tests.images.bad_images import encoded, photo

JPEG = encoded(photo(), "JPEG")


def fill(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(JPEG)


def fill_tar(path: Path, *names: str) -> Path:
    (path.parent / "one.jpg").write_bytes(JPEG)
    with tarfile.open(path, "w") as archive:
        for name in names:
            archive.add(path.parent / "one.jpg", name)
    return path


def keys(source: object, run_dir: object = "") -> list[str]:
    images = Images.model_validate({"source": source})
    return list(open_source(images, str(run_dir)).list().keys())


@dataclass(frozen=True, slots=True)
class ToySource(Source):
    """A file with one image's name per line."""

    path: Path

    def list(self) -> Listing:
        return Listing(tuple(Entry(name, "1") for name in self.path.read_text().split()))

    def open(self) -> Reader:
        return ToyReader()


class ToyReader(Reader):
    def fetch(self, key: str) -> bytes:
        return JPEG

    def close(self) -> None:
        pass


def test_a_new_source_is_a_module_and_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "names.toy").write_text("a b\n")
    with pytest.raises(RefusedError, match="is of no supported kind"):
        open_source(Images(source=str(tmp_path / "names.toy")))
    toy = SourceKind(
        has_suffix(".toy"),
        lambda wanted: ToySource(wanted.identity, Path(wanted.address)),
        "*.toy",
        many=True,
    )
    monkeypatch.setitem(SOURCES, "toy", toy)
    images = Images(source=str(tmp_path / "names.toy"))
    source = open_source(images)
    assert source.identity == f"toy:{tmp_path}/names.toy"
    assert list(source.list().keys()) == ["a", "b"]
    assert source.read_labels(images).of("a") is None
    (tmp_path / "labels.csv").write_text("key,label\na,cat\n")
    images = Images(source=images.source, labels=str(tmp_path / "labels.csv"))
    assert source.read_labels(images).of("a") == "cat"
    with source.open() as reader:
        assert reader.fetch("a") == JPEG
    with pytest.raises(RefusedError, match=r"files \*\.parquet or \*\.tar or \*\.toy"):
        open_source(Images(source=str(tmp_path / "gone")))


def test_a_mistyped_word_has_a_near_one() -> None:
    with pytest.raises(RefusedError, match=r"did you mean digits\?"):
        open_source(Images(source="digit"))


def test_hidden_folders_are_passed_over_in_folders_and_archives_alike(tmp_path: Path) -> None:
    names = ("a/1.jpg", ".trash/2.jpg", "a/.cache/deep/3.jpg", "__MACOSX/4.jpg", "a/.5.jpg")
    fill(tmp_path / "tree", *names)
    assert keys(str(tmp_path / "tree")) == ["a/1.jpg"]
    assert keys(str(fill_tar(tmp_path / "s.tar", *names, "./b/6.jpg"))) == [
        "s.tar/a/1.jpg",
        "s.tar/b/6.jpg",
    ]


def test_a_glob_passes_over_hidden_folders_unless_it_names_them(tmp_path: Path) -> None:
    for folder in ("a", ".trash"):
        (tmp_path / folder).mkdir()
        fill_tar(tmp_path / folder / "s.tar", "1.jpg")
    assert keys(str(tmp_path / "*" / "*.tar")) == ["a/s.tar/1.jpg"]
    assert keys(str(tmp_path / ".trash" / "*.tar")) == ["s.tar/1.jpg"]


def test_repeats_of_rows_have_their_rows_label_in_every_archive(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [JPEG, JPEG]}), tmp_path / "a.parquet")
    (tmp_path / "labels.csv").write_text("key,label\na.parquet/1,dog\na.parquet/0#1,again\n")
    images = Images(
        source=str(tmp_path / "a.parquet"),
        indices=[1, 0, 1, 0],
        labels=str(tmp_path / "labels.csv"),
    )
    source = open_source(images)
    found = source.read_labels(images)
    listed = list(source.list().keys())
    assert [found.of(key) for key in listed] == ["dog", None, "dog", "again"]


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_parent_labels_by_the_last_folder_and_splits_are_noticed(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    names = ("train/ants/1.jpg", "train/bees/2.jpg", "Val/ants/3.jpg")
    if kind == "tar":
        place = str(fill_tar(tmp_path / "s.tar", *names))
    else:
        place = str(tmp_path / "tree")
        fill(tmp_path / "tree", *names)
    prefix = "s.tar/" if kind == "tar" else ""
    found = {}
    for labels in ("folder", "parent"):
        images = Images(source=place, labels=labels)
        source = open_source(images)
        with caplog.at_level(logging.WARNING):
            read = source.read_labels(images, source.list())
        found[labels] = [read.of(prefix + name) for name in names]
        assert ("images.labels: parent takes the last" in caplog.text) == (labels == "folder")
        caplog.clear()
    assert found == {"folder": ["train", "train", "Val"], "parent": ["ants", "bees", "ants"]}


def test_classes_that_are_not_splits_cause_no_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path, "ants/deep/1.jpg", "train/deep/2.jpg")
    fill(tmp_path / "flat", "train/1.jpg", "val/2.jpg")
    for place in (tmp_path, tmp_path / "flat"):
        source = open_source(Images(source=str(place)))
        source.read_labels(Images(source=str(place)), source.list())
    assert "splits" not in caplog.text


def test_parent_is_refused_where_images_have_no_folder() -> None:
    with pytest.raises(RefusedError, match="parent for images in folders"):
        open_source(Images()).read_labels(Images(labels="parent"))


@pytest.mark.parametrize("run", ["runs/a", "runs/b"])
def test_run_directories_in_the_source_are_passed_over_and_said(
    tmp_path: Path, run: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The run's own, from its first invocation on, and those of other runs."""
    fill(tmp_path, "1.jpg", f"{run}/mosaic/layer.png", "runs/notes.png")
    if run == "runs/b":
        (tmp_path / run / "run.json").write_text("{}")
        (tmp_path / run / "passes").mkdir()
    with caplog.at_level(logging.WARNING):
        assert keys(str(tmp_path), tmp_path / "runs" / "a") == ["1.jpg", "runs/notes.png"]
    assert caplog.text.count("passed over the run directory") == 1
    assert run in caplog.text


def test_a_run_directory_among_globbed_shards_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for folder in ("data", "run"):
        (tmp_path / folder).mkdir()
        pq.write_table(pa.table({"image": [JPEG]}), tmp_path / folder / "0.parquet")
    assert keys(str(tmp_path / "*" / "*.parquet"), tmp_path / "run") == ["data/0.parquet/0"]
    assert "passed over 1 files of the run directory" in caplog.text


def test_a_run_directory_that_is_its_source_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "1.jpg")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RefusedError, match="take another run_dir"):
        open_source(Images(source=str(tmp_path)), ".")


def test_an_absolute_section_means_the_same_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path, "photos/1.jpg")
    given = Images(source="photos/", labels="l.csv", label_names="n.yaml", indices="rows.txt")
    section = absolute_source(given)
    here = str(tmp_path)
    assert section == Images(
        source=f"{here}/photos",
        labels=f"{here}/l.csv",
        label_names=f"{here}/n.yaml",
        indices=f"{here}/rows.txt",
    )
    assert absolute_source(section) == section
    several = Images(source=["a.tar", "s3://b/c.tar"], indices="0:9", labels="parent")
    assert absolute_source(several).source == [f"{here}/a.tar", "s3://b/c.tar"]
    assert absolute_source(several).indices == "0:9"
    assert absolute_source(Images()) == Images()
    before = open_source(Images(source="photos")).identity
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert open_source(Images(source=section.source)).identity == before
    assert open_source(Images(source="../photos")).identity == before


def test_a_stored_relative_identity_is_the_same_where_it_leads_to_the_same_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = str(tmp_path)
    for stored, identity in {
        "folder:photos": f"folder:{here}/photos",
        "folder:../x/photos": f"folder:{tmp_path.parent}/x/photos",
        "folder:file:/data": "folder:/data",
        "folder:s3://bucket/a": "folder:s3://bucket/a",
        "hdf5:a.h5:imgBrick": f"hdf5:{here}/a.h5:imgBrick",
        "tar:a.tar, /b.tar": f"tar:{here}/a.tar, /b.tar",
        "tar:a, b.tar": f"tar:{here}/a, b.tar",
        "digits": "digits",
    }.items():
        assert is_same_source(stored, identity)
        assert is_same_source(identity, identity)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert not is_same_source("folder:photos", f"folder:{here}/photos")
    assert not is_same_source("folder:digits", "digits")
