"""What counts as an image of a folder, in which order, under which key."""

import errno
import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnvis_ray.config import Images
from cnnvis_ray.errors import ImageRejectedError, RefusedError
from cnnvis_ray.images import images_of, open_source, prepared
from cnnvis_ray.images.folder import MAX_FILE_BYTES, FolderReader
from cnnvis_ray.images.names import first_folder, key_of, path_of
from tests.images.bad_images import encoded, make_bad_folder, photo

JPEG = encoded(photo(), "JPEG")


def fill(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(JPEG)


def keys(root: Path, **settings: int) -> list[str]:
    source = open_source(Images(source=str(root), **settings))
    return [entry.key for entry in source.list().entries]


def test_every_bad_case_is_a_row_or_a_reject_and_nothing_else_is_listed(tmp_path: Path) -> None:
    expected = make_bad_folder(tmp_path)
    source = open_source(Images(source=str(tmp_path)))
    entries = source.list().entries
    assert {entry.key for entry in entries} == set(expected)
    with source.open() as reader:
        items = [(slot, key) for slot, key, _ in images_of(entries)]
        outcomes = {
            key: result.stage if isinstance(result, ImageRejectedError) else result
            for _, key, result in prepared(reader, items, lambda _: None, 10**8, 2, 8)
        }
    assert outcomes == expected


def test_keys_are_sorted_by_the_bytes_of_the_path(tmp_path: Path) -> None:
    fill(tmp_path, "b/1.jpg", "a/2.jpg", "a-b/1.jpg", "B/1.jpg", "é.jpg", "😀.jpg", "a/10.jpg")
    assert keys(tmp_path) == [
        "B/1.jpg", "a-b/1.jpg", "a/10.jpg", "a/2.jpg", "b/1.jpg", "é.jpg", "😀.jpg",
    ]  # fmt: skip


def test_suffixes_count_in_any_case_and_others_do_not(tmp_path: Path) -> None:
    fill(tmp_path, "a.JpG", "b.TIFF", "c.txt", "d.jpg.bak", "e", ".jpg", "f.pgm", "g.svg")
    assert keys(tmp_path) == ["a.JpG", "b.TIFF", "f.pgm"]


def test_limit_takes_the_first(tmp_path: Path) -> None:
    fill(tmp_path, "c.jpg", "a.jpg", "b.jpg")
    assert keys(tmp_path, limit=2) == ["a.jpg", "b.jpg"]


def test_links_are_followed_unless_they_lead_back(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    fill(tmp_path, "root/a/1.jpg", "elsewhere/2.jpg", "elsewhere/deep/3.jpg")
    (root / "outside").symlink_to(elsewhere)
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "far_up").symlink_to(tmp_path)
    (elsewhere / "deep" / "back").symlink_to(elsewhere)
    (elsewhere / "itself").symlink_to("itself")
    assert keys(root) == ["a/1.jpg", "outside/2.jpg", "outside/deep/3.jpg"]


def test_two_folders_that_link_to_each_other_end(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a" / "b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "a").symlink_to(tmp_path / "a")
    assert keys(tmp_path) == ["a/1.jpg", "a/b/2.jpg", "b/2.jpg", "b/a/1.jpg"]


def test_a_very_deep_tree_is_walked(tmp_path: Path) -> None:
    at = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1_050):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(os.open("deep.jpg", os.O_CREAT | os.O_WRONLY, dir_fd=at))
    os.close(at)
    listed = keys(tmp_path)
    subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # shutil.rmtree would recurse
    assert listed == ["d/" * 1_050 + "deep.jpg"]


def test_a_version_changes_with_content_and_time(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg", "b.jpg")
    source = open_source(Images(source=str(tmp_path)))
    before = source.list().entries
    assert source.list().entries == before
    os.utime(tmp_path / "a.jpg", ns=(1, 1))
    after = source.list().entries
    assert after[0].version == f"{len(JPEG)}-1"
    assert after[1] == before[1]


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty_class").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(RefusedError, match=r"holds no image \(1 other files\); .*\.jpg"):
        keys(tmp_path)


def test_indices_of_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"images\.indices .* images\.limit"):
        open_source(Images(source=str(tmp_path), indices="0:2"))


def test_a_folder_that_cannot_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "a/1.jpg")

    def denied(path: bytes) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(RefusedError, match="Permission denied"):
        keys(tmp_path)


@pytest.mark.parametrize(
    ("source", "says"),
    {
        "nowhere": "No such file",
        "ftp://host/photos": "no address ftp://",
        "x" * 300: "File name too long",
        "nul\0": "null",
        __file__: "no supported kind",
    }.items(),
)
def test_other_sources_are_refused_in_one_line(source: str, says: str) -> None:
    with pytest.raises(RefusedError, match=says) as caught:
        open_source(Images(source=source))
    assert "allowed are a folder of images" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_identity_is_the_absolute_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path, "photos/1.jpg")
    sources = [open_source(Images(source=text)) for text in ("photos", "./photos/")]
    assert {source.identity for source in sources} == {f"folder:{tmp_path}/photos"}
    limited = open_source(Images(source="photos", limit=1))
    assert limited.identity == f"folder:{tmp_path}/photos"


def test_a_source_travels_and_reads_from_any_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path, "photos/1.jpg")
    source = pickle.loads(pickle.dumps(open_source(Images(source="photos"))))  # noqa: S301
    monkeypatch.chdir("/")
    with source.open() as reader:
        assert reader.fetch("1.jpg") == JPEG


@pytest.mark.parametrize("name", ["gone.jpg", "folder.jpg", "x/y.jpg", "n" * 300 + ".jpg"])
def test_the_fault_of_one_file_is_a_reject(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "x").touch()
    with FolderReader(tmp_path) as reader, pytest.raises(ImageRejectedError) as caught:
        reader.fetch(name)
    assert caught.value.stage == "read"
    assert str(tmp_path) not in str(caught.value)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with FolderReader(tmp_path) as reader, pytest.raises(ImageRejectedError, match="bytes"):
        reader.fetch("huge.jpg")


def failing(code: int) -> Callable[..., int]:
    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EMFILE, errno.ETIMEDOUT, errno.ENOMEM])
def test_trouble_that_passes_is_no_reject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    fill(tmp_path, "1.jpg")
    reader = FolderReader(tmp_path)
    monkeypatch.setattr(os, "open", failing(code))
    with pytest.raises(OSError, match=os.strerror(code)):
        reader.fetch("1.jpg")


def test_a_source_that_is_gone_makes_no_rejects(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FolderReader(tmp_path / "unmounted").fetch("1.jpg")


def test_classes_are_first_folders_and_may_be_renamed(tmp_path: Path) -> None:
    fill(tmp_path, "cane/1.jpg", "cane/deep/2.jpg", "gatto/1.jpg", "flat.jpg")
    config = Images(source=str(tmp_path), label_names={"cane": "dog"})
    labels = pickle.loads(pickle.dumps(open_source(config).read_labels(config)))  # noqa: S301
    assert {key: labels.of(key) for key in keys(tmp_path)} == {
        "cane/1.jpg": "dog",
        "cane/deep/2.jpg": "dog",
        "flat.jpg": None,
        "gatto/1.jpg": "gatto",
    }


path_parts = st.binary(min_size=1, max_size=6).filter(
    lambda part: not set(part) & {0, 0x2F} and part not in (b".", b"..")
)
paths = st.lists(path_parts, min_size=1, max_size=3).map(b"/".join)


@given(paths)
def test_every_path_has_a_key_in_utf8_that_leads_back(path: bytes) -> None:
    key = key_of(path)
    assert key.encode()
    assert path_of(key) == path


@given(paths, paths)
def test_two_paths_never_share_a_key(one: bytes, other: bytes) -> None:
    assert (key_of(one) == key_of(other)) == (one == other)


def test_plain_names_are_their_own_keys() -> None:
    assert key_of("Bär/100%41 #1.jpg".encode()) == "Bär/100%41 #1.jpg"
    assert key_of(b"caf\xe9/\xff.jpg") == "caf//E9///FF.jpg"
    assert first_folder("caf//E9///FF.jpg") == "caf\\xe9"
    assert first_folder("//FF.jpg") is None


@pytest.mark.photos
def test_the_real_photos(shared: Path) -> None:
    source = open_source(Images(source=str(shared / "data" / "photos")))
    labels = source.read_labels(Images())
    entries = source.list().entries
    assert len(entries) == 1_000
    assert len({labels.of(entry.key) for entry in entries}) == 200
