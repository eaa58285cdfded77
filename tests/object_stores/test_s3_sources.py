"""Images in an object store: folders, Parquet and tar, read where they lie."""

import io
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cnnvis_ray.config import Images
from cnnvis_ray.errors import ImageRejectedError, RefusedError
from cnnvis_ray.images import images_of, open_source
from cnnvis_ray.storage import Store, StoreError
from tests.images.bad_images import encoded, photo
from tests.object_stores.conftest import SECRET
from tests.object_stores.server import Fault, S3Server

JPEG = encoded(photo(), "JPEG")


def config_of(*addresses: str, **settings: object) -> Images:
    source = list(addresses) if len(addresses) > 1 else addresses[0]
    return Images.model_validate({"source": source, **settings})


def keys(config: Images) -> list[str]:
    return [key for _, key, _ in images_of(open_source(config).list().entries)]


def refusal(config: Images) -> str:
    with pytest.raises(RefusedError) as caught:
        open_source(config).list()
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)
    return str(caught.value)


def parquet(count: int) -> bytes:
    buffer = io.BytesIO()
    table = pa.table({"image": [b"%d" % row for row in range(count)], "label": ["x"] * count})
    pq.write_table(table, buffer, row_group_size=8)
    return buffer.getvalue()


def tar(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name.replace("_", "."))
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def photos(bucket: str) -> Store:
    store = Store(f"{bucket}/photos")
    for name in ("b/2.png", "a/1.jpg", "a-b/3.JPG", "é ü.jpg", "a/.hidden.jpg", "a/notes.txt"):
        store.write(name, JPEG + name.encode())
    store.write("__MACOSX/4.jpg", b"")
    store.write("a/empty.jpg", b"")
    return store


def test_a_folder_is_listed_as_on_a_disk(photos: Store) -> None:
    for address in (photos.root, f"{photos.root}/"):
        assert keys(config_of(address)) == [
            "a-b/3.JPG", "a/1.jpg", "a/empty.jpg", "b/2.png", "é ü.jpg",
        ]  # fmt: skip
    config = config_of(photos.root, limit=2)
    assert keys(config) == ["a-b/3.JPG", "a/1.jpg"]
    assert open_source(config).read_labels(config).of("a/1.jpg") == "a"


def test_objects_are_read_whole_from_many_threads(photos: Store, s3: S3Server) -> None:
    source = pickle.loads(pickle.dumps(open_source(config_of(photos.root))))  # noqa: S301
    wanted = [entry.key for entry in source.list().entries if entry.key != "a/empty.jpg"]
    s3.requests.clear()
    with source.open() as reader, ThreadPoolExecutor(8) as pool:
        assert list(pool.map(reader.fetch, wanted)) == [JPEG + key.encode() for key in wanted]
        assert len(s3.asked("")) == len(wanted)
        assert reader.fetch("a/empty.jpg") == b""


def test_a_changed_object_has_another_version(photos: Store) -> None:
    source = open_source(config_of(photos.root))
    before = {entry.key: entry.version for entry in source.list().entries}
    photos.write("a/1.jpg", JPEG + b"a/2.jpg")  # as long as before
    photos.write("c/new.jpg", JPEG)
    after = {entry.key: entry.version for entry in source.list().entries}
    changed = {key for key in before if before[key] != after[key]}
    assert (changed, after.keys() - before.keys()) == ({"a/1.jpg"}, {"c/new.jpg"})


def test_a_gone_object_is_a_reject_and_a_store_in_trouble_is_not(
    photos: Store, s3: S3Server
) -> None:
    with open_source(config_of(photos.root)).open() as reader:
        with pytest.raises(ImageRejectedError, match="does not exist any more"):
            reader.fetch("a/gone.jpg")
        s3.faults.append(Fault("1.jpg", "403 Forbidden", "ExpiredToken"))
        with pytest.raises(StoreError) as caught:
            reader.fetch("a/1.jpg")
    assert SECRET not in str(caught.value)


def test_a_gone_bucket_is_no_reject(s3: S3Server) -> None:
    with open_source(config_of("s3://gone-away/photos")).open() as reader:
        with pytest.raises((StoreError, ImageRejectedError)) as caught:
            reader.fetch("a/1.jpg")
        assert isinstance(caught.value, StoreError)


def test_what_cannot_work_is_refused(bucket: str, s3: S3Server) -> None:
    assert "the bucket does not exist" in refusal(config_of("s3://no-such-bucket/photos"))
    assert "holds no image (0 other objects)" in refusal(config_of(f"{bucket}/photos"))
    assert "it does not exist" in refusal(config_of(f"{bucket}/a.parquet"))
    assert "matches no file" in refusal(config_of(f"{bucket}/*.parquet"))
    assert "HDF5 is not read from an object store" in refusal(config_of(f"{bucket}/a.h5"))
    assert "indices" in refusal(config_of(f"{bucket}/photos", indices="0:1"))
    assert "credentials or a query" in refusal(config_of(f"s3://k:{SECRET}@bucket/photos"))
    assert "several kinds" in refusal(config_of(f"{bucket}/a.tar", f"{bucket}/a.parquet"))
    Store(bucket).write("a.parquet", b"PAR1")
    Store(bucket).write("a.tar", b"PAR1")
    assert "not a Parquet file or is truncated" in refusal(config_of(f"{bucket}/a.parquet"))
    assert "not a tar archive" in refusal(config_of(f"{bucket}/a.tar"))
    s3.faults.append(Fault("^(GET|HEAD)", "403 Forbidden", "AccessDenied"))
    assert "denies access" in refusal(config_of(f"{bucket}/photos"))


def test_parquet_by_glob(bucket: str, s3: S3Server) -> None:
    store = Store(bucket)
    for number in range(3):
        store.write(f"data/part-{number}.parquet", parquet(20))
    store.write("data/readme.md", b"")
    config = config_of(f"{bucket}/data/*.parquet")
    source = open_source(config)
    s3.requests.clear()
    listing = source.list()
    assert not s3.asked("readme")
    assert [(entry.key, entry.rows) for entry in listing.entries] == [
        (f"part-{number}.parquet/", (0, 20)) for number in range(3)
    ]
    assert len({entry.version for entry in listing.entries}) == 1  # the same size and ETag
    wanted = [key for _, key, _ in images_of(listing.entries)]
    with pickle.loads(pickle.dumps(source)).open() as reader, ThreadPoolExecutor(4) as pool:  # noqa: S301
        assert list(pool.map(reader.fetch, wanted)) == [b"%d" % row for row in range(20)] * 3
    assert source.read_labels(config).of("part-2.parquet/7") == "x"
    assert source.identity == f"parquet:{bucket}/data/*.parquet"


def test_parquet_whose_store_fails_while_it_is_read(bucket: str, s3: S3Server) -> None:
    Store(bucket).write("a.parquet", parquet(20))
    with open_source(config_of(f"{bucket}/a.parquet")).open() as reader:
        s3.faults.append(Fault("^GET", "403 Forbidden", "AccessDenied"))
        with pytest.raises(StoreError, match="denies access"):
            reader.fetch("a.parquet/0")
        s3.faults.clear()
        assert reader.fetch("a.parquet/3") == b"3"


def test_tars_in_a_list(bucket: str, s3: S3Server) -> None:
    store = Store(bucket)
    store.write("x/a.tar", tar(one_jpg=b"1", one_cls=b"dog", two_jpg=b"2"))
    store.write("b.tar", tar(one_jpg=b"3"))
    config = config_of(f"{bucket}/x/a.tar", f"{bucket}/b.tar")
    source = open_source(config)
    wanted = [entry.key for entry in source.list().entries]
    assert wanted == ["a.tar/one.jpg", "a.tar/two.jpg", "b.tar/one.jpg"]
    s3.requests.clear()
    with source.open() as reader:
        assert [reader.fetch(key) for key in wanted * 2] == [b"1", b"2", b"3"] * 2
    assert len(s3.asked("^GET .*a.tar")) == 1  # copied once
    assert source.read_labels(config).of("a.tar/one.jpg") == "dog"


def test_labels_and_their_names_from_the_store(photos: Store, bucket: str) -> None:
    Store(bucket).write("labels.csv", b"key,label\na/1.jpg,chien\n")
    Store(bucket).write("names.yaml", b"chien: dog\n")
    table = pa.table({"key": ["b/2.png"], "label": ["gatto"]})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    Store(bucket).write("labels.parquet", buffer.getvalue())
    config = config_of(
        photos.root, labels=f"{bucket}/labels.csv", label_names=f"{bucket}/names.yaml"
    )
    assert open_source(config).read_labels(config).of("a/1.jpg") == "dog"
    config = config_of(photos.root, labels=f"{bucket}/labels.parquet")
    assert open_source(config).read_labels(config).of("b/2.png") == "gatto"
    for settings in (
        {"labels": f"s3://k:{SECRET}@bucket/a.csv"},
        {"label_names": f"s3://k:{SECRET}@bucket/a.yaml"},
        {"labels": "s3://no-such-bucket/a.csv"},
    ):
        config = config_of(photos.root, **settings)
        with pytest.raises(RefusedError) as caught:
            open_source(config).read_labels(config)
        assert SECRET not in str(caught.value)
