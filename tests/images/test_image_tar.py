"""Tar archives in WebDataset's form: members, samples, labels, and archives that mean harm."""

import gzip
import io
import json
import os
import pickle
import resource
import subprocess
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cnnvis_ray.config import Images
from cnnvis_ray.errors import ImageRejectedError, RefusedError
from cnnvis_ray.images import images_of, open_source, prepared
from cnnvis_ray.images.members import MAX_HEADER_BYTES, split_sample
from tests.images.bad_images import encoded, photo

JPEG = encoded(photo(), "JPEG")
Members = Sequence[tuple[str, bytes]]


def write(path: Path, members: Members, form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def config_of(*paths: Path, **settings: object) -> Images:
    source = [str(path) for path in paths] if len(paths) > 1 else str(paths[0])
    return Images.model_validate({"source": source, **settings})


def keys(config: Images) -> list[str]:
    return [key for _, key, _ in images_of(open_source(config).list().entries)]


def labels(config: Images) -> list[str | None]:
    found = pickle.loads(pickle.dumps(open_source(config).read_labels(config)))  # noqa: S301
    return [found.of(key) for key in keys(config)]


def refusal(config: Images) -> str:
    with pytest.raises(RefusedError) as caught:
        open_source(config).list()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_listed_and_read(tmp_path: Path, form: int) -> None:
    long = "/".join(["folder" * 5] * 6) + "/x.png"
    members = [("0001.jpg", b"one"), ("0001.cls", b"3"), ("a/0002.jpeg", b"two"), (long, b"long")]
    source = open_source(config_of(write(tmp_path / "s.tar", members, form)))
    assert keys(config_of(tmp_path / "s.tar")) == [
        "s.tar/0001.jpg",
        "s.tar/a/0002.jpeg",
        f"s.tar/{long}",
    ]
    with pickle.loads(pickle.dumps(source)).open() as reader:  # noqa: S301
        assert reader.fetch("s.tar/0001.jpg") == b"one"
        assert reader.fetch(f"s.tar/{long}") == b"long"
        assert reader.fetch("s.tar/a/0002.jpeg") == b"two"
        with pytest.raises(ImageRejectedError, match="not have this member any more"):
            reader.fetch("s.tar/0009.jpg")


def test_many_archives_from_many_threads(tmp_path: Path) -> None:
    for number in range(4):
        members = [(f"{row:04d}.jpg", b"%d-%d" % (number, row)) for row in range(50)]
        write(tmp_path / f"{number}.tar", members)
    config = config_of(tmp_path / "?.tar")
    with open_source(config).open() as reader, ThreadPoolExecutor(8) as pool:
        wanted = keys(config)
        assert len(wanted) == 200
        mixed = wanted[::7] + wanted
        assert list(pool.map(reader.fetch, mixed)) == [
            b"%d-%d" % (int(key[0]), int(key[6:10])) for key in mixed
        ]
    assert keys(config_of(tmp_path / "?.tar", limit=51))[-1] == "1.tar/0000.jpg"


def test_labels_of_samples(tmp_path: Path) -> None:
    members = [
        ("a/1.jpg", JPEG),
        ("a/1.cls", b" dog\n"),
        ("a/1.json", json.dumps({"label": "never"}).encode()),
        ("2.left.jpg", JPEG),
        ("2.right.jpg", JPEG),
        ("2.json", json.dumps({"label": 7}).encode()),
        ("b/3.jpg", JPEG),
        ("4.jpg", JPEG),
        ("4.json", b"[" * 100_000),
        ("c/5.jpg", JPEG),
        ("c/5.cls", b""),
    ]
    config = config_of(write(tmp_path / "s.tar", members))
    assert labels(config) == ["dog", "7", "7", "b", None, "c"]
    assert labels(config_of(tmp_path / "s.tar", labels=None)) == [None] * 6


def test_a_sample_is_what_stands_before_the_first_dot() -> None:
    assert split_sample("a.b/0001.seg.PNG") == ("a.b/0001", "seg.png")
    assert split_sample("0001") == ("0001", "")


def test_what_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("./a/1.jpg", "a/.2.jpg", "__MACOSX/3.jpg", "notes.txt", "a/4.jpg", "a/4.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 4
            archive.addfile(info, io.BytesIO(name[-5:-1].encode()))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            info = tarfile.TarInfo(f"link-{kind.decode()}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        folder = tarfile.TarInfo("folder.jpg")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    assert keys(config_of(path)) == ["s.tar/a/1.jpg", "s.tar/a/4.jpg"]


def test_paths_that_lead_outside_are_only_names(tmp_path: Path) -> None:
    inside = tmp_path / "deep" / "inside"
    inside.mkdir(parents=True)
    path = write(
        inside / "s.tar", [("../../out.jpg", JPEG), ("/abs.jpg", JPEG), ("é/\udcff.jpg", JPEG)]
    )
    config = config_of(path)
    found = keys(config)
    assert found == ["s.tar/../../out.jpg", "s.tar//abs.jpg", "s.tar/é///FF.jpg"]
    with open_source(config).open() as reader:
        assert [reader.fetch(key) for key in found] == [JPEG] * 3
    assert [str(one) for one in tmp_path.rglob("*.jpg")] == []
    assert not Path("/abs.jpg").exists()


def test_of_two_members_of_one_path_the_later_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tar", [("a.jpg", b"old"), ("b.jpg", b"b"), ("a.jpg", b"new")])
    with open_source(config_of(path)).open() as reader:
        assert reader.fetch("s.tar/a.jpg") == b"new"
    assert keys(config_of(path)) == ["s.tar/a.jpg", "s.tar/b.jpg"]


def test_compressed_archives_are_refused_with_a_reason(tmp_path: Path) -> None:
    plain = write(tmp_path / "s.tar", [("a.jpg", JPEG)]).read_bytes()
    (tmp_path / "s.tar.gz").write_bytes(gzip.compress(plain))
    (tmp_path / "named.tar").write_bytes(gzip.compress(plain))
    assert "no random access; unpack it" in refusal(config_of(tmp_path / "s.tar.gz"))
    assert "'named.tar' is compressed with gzip" in refusal(config_of(tmp_path / "named.tar"))


@pytest.mark.parametrize("at", ["within", "between", "header"])
def test_a_truncated_archive_is_refused(tmp_path: Path, at: str) -> None:
    path = write(tmp_path / "s.tar", [(f"{n}.jpg", bytes([n]) * 2000) for n in range(5)])
    whole = path.read_bytes()
    cut = {"within": 512 + 100, "between": 2 * (512 + 2048), "header": 2 * (512 + 2048) + 100}
    path.write_bytes(whole[: cut[at]])
    assert "'s.tar' is not a tar archive, truncated or damaged" in refusal(config_of(path))


def test_a_damaged_header_in_the_middle_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tar", [(f"{n}.jpg", b"x" * 2000) for n in range(5)])
    raw = bytearray(path.read_bytes())
    raw[2 * 2560 : 2 * 2560 + 300] = b"\x99" * 300
    path.write_bytes(raw)
    assert "no header and no end at byte 5120" in refusal(config_of(path))


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    for content in (b"", b"hello", b"x" * 5000, bytes(10)):
        path.write_bytes(content)
        assert "is not a tar archive, truncated or damaged" in refusal(config_of(path))
    path.write_bytes(bytes(1024))
    assert "holds no image" in refusal(config_of(path))
    write(path, [("a.txt", b"")])
    assert "holds no image" in refusal(config_of(path))
    assert "indices choose rows" in refusal(config_of(path, indices="0:1"))


def sparse(path: Path, header: bytes, size: int) -> None:
    """Write an archive whose first member is said, and is, huge, without the disk for it."""
    with path.open("wb") as file:
        file.write(header)
        file.truncate(512 + size + 1024)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.REGTYPE])
def test_sizes_in_headers_cannot_fill_the_memory(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("huge.jpg")
    info.type, info.size = kind, 20 << 30
    path = tmp_path / "s.tar"
    sparse(path, info.tobuf(tarfile.GNU_FORMAT), info.size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if kind == tarfile.REGTYPE:
        with open_source(config_of(path)).open() as reader:
            items = [(0, "s.tar/huge.jpg")]
            ((_, _, outcome),) = prepared(reader, items, lambda _: None, 10**8, 1, 1)
        assert "a member of 21474836480 bytes; at most" in str(outcome)
    else:
        assert "a header of 21474836480 bytes" in refusal(config_of(path))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10
    assert MAX_HEADER_BYTES < 100 << 20


def test_a_changed_archive_changes_the_version_of_its_images(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tar", [("a.jpg", JPEG)])
    before = open_source(config_of(path)).list().entries[0]
    write(path, [("a.jpg", JPEG[:-1])])
    os.utime(path, ns=(1, 1))
    after = open_source(config_of(path)).list().entries[0]
    assert (before.key, before.version != after.version) == (after.key, True)


def test_an_archive_by_the_tar_command(tmp_path: Path) -> None:
    for name in ("cat/ü 1.jpg", "dog/2.jpg"):
        (tmp_path / "tree" / name).parent.mkdir(parents=True)
        (tmp_path / "tree" / name).write_bytes(JPEG)
    archive = tmp_path / "tree.tar"
    subprocess.run(["tar", "-C", str(tmp_path / "tree"), "-cf", str(archive), "."], check=True)
    config = config_of(archive)
    assert sorted(keys(config)) == ["tree.tar/cat/ü 1.jpg", "tree.tar/dog/2.jpg"]
    assert sorted(map(str, labels(config))) == ["cat", "dog"]
