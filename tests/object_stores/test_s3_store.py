"""A run directory in an object store: whole files or none, nothing stale, one line of trouble."""

import pickle
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.storage import Store, StoreError, read_table, shard_writer, write_table
from tests.object_stores.conftest import SECRET
from tests.object_stores.server import Fault, S3Server

SCHEMA = pa.schema([("image_id", pa.int64()), ("feature", pa.list_(pa.float16(), 4))])


def rows(count: int) -> pa.Table:
    values = pa.array(np.arange(count * 4, dtype=np.float16))
    cells = pa.FixedSizeListArray.from_arrays(values, type=SCHEMA.field("feature").type)
    return pa.table([pa.array(range(count), pa.int64()), cells], schema=SCHEMA)


@pytest.fixture
def store(bucket: str) -> Store:
    return Store(f"{bucket}/runs/one")


def test_what_is_written_is_there(store: Store) -> None:
    assert store.names("") == []
    assert not store.exists("run.json")
    store.write("run.json", b"{}")
    shard = write_table(store, "images/000000.r0.parquet", rows(10))
    assert shard.rows == 10
    assert store.exists("run.json")
    assert store.exists("images")
    assert store.names("") == ["images", "run.json"]
    assert store.files("") == ["images/000000.r0.parquet", "run.json"]
    assert read_table(store, "images/000000.r0.parquet").equals(rows(10))
    with pytest.raises(FileNotFoundError):
        store.read("none.json")


def test_nothing_stale_is_read(store: Store) -> None:
    other: Store = pickle.loads(pickle.dumps(store))  # noqa: S301
    for number in range(3):
        assert len(store.names("done")) == len(store.files("done")) == number
        other.write(f"done/{number}.json", b"1")
    assert store.read("done/0.json") == b"1"
    other.write("done/0.json", b"2")
    assert store.read("done/0.json") == b"2"
    other.delete(["done/0.json", "done/0.json", "done/never.json"])
    assert not store.exists("done/0.json")
    assert store.names("done") == ["1.json", "2.json"]


def test_a_shard_is_uploaded_once_and_after_its_last_row(store: Store, s3: S3Server) -> None:
    with shard_writer(store, "x.parquet", SCHEMA) as writer:
        writer.write(rows(9000))
        assert s3.asked("^(PUT|POST) .*x.parquet") == []
    assert len(s3.asked("^(PUT|POST) .*x.parquet")) == 1


def test_a_failed_shard_leaves_nothing(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), shard_writer(store, "x.parquet", SCHEMA) as writer:
        writer.write(rows(9000))
        assert list(Path(tempfile.gettempdir()).glob("*x.parquet")) == []  # nor a killed worker
        raise ZeroDivisionError
    assert store.files("") == []


@pytest.mark.slow  # moto takes ten seconds to take it in
def test_a_shard_of_100_megabytes_passes(store: Store, s3: S3Server) -> None:
    wide = pa.schema([("feature", pa.list_(pa.float32(), 1 << 16))])
    values = np.random.default_rng(0).random(400 << 16, dtype=np.float32)
    cells = pa.FixedSizeListArray.from_arrays(pa.array(values), type=wide.field(0).type)
    shard = write_table(store, "wide.parquet", pa.table([cells], schema=wide))
    assert shard.bytes > 80 << 20
    with store.open("wide.parquet") as file:
        assert file.seek(0, 2) == shard.bytes
    read = read_table(store, "wide.parquet")["feature"].combine_chunks().flatten()
    np.testing.assert_array_equal(read.to_numpy(), values)


def test_an_upload_that_breaks_off_leaves_no_object(
    store: Store, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.faults.append(Fault("^PUT .*partNumber=2", "403 Forbidden", "AccessDenied"))
    with pytest.raises(StoreError, match="denies access"), store.writing("big.bin") as file:
        file.write(bytes(120 << 20))
    assert store.files("") == []
    assert s3.asked("^DELETE .*uploadId")


def test_many_markers_are_read_at_once(store: Store) -> None:
    wanted = {f"done/{number:06d}.json": b"%d" % number for number in range(60)}
    for name, data in wanted.items():
        store.write(name, data)
    assert store.read_many(wanted) == wanted
    assert list(store.read_many(wanted)) == list(wanted)
    store.delete(wanted)
    assert store.names("done") == []


def test_of_two_who_create_one_wins(store: Store) -> None:
    assert store.create("lease.json", b"one")
    assert not store.create("lease.json", b"two")
    assert store.read("lease.json") == b"one"


def test_a_busy_store_is_asked_again(store: Store, s3: S3Server) -> None:
    s3.faults.append(Fault("^PUT .*a.json", "503 Service Unavailable", "SlowDown", times=2))
    store.write("a.json", b"1")
    assert len(s3.asked("^PUT .*a.json")) == 3
    s3.faults[:] = [Fault("^GET .*a.json", "500 Internal Server Error", "InternalError", times=2)]
    assert store.read("a.json") == b"1"


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        ("403 Forbidden", "AccessDenied", "denies access"),
        ("403 Forbidden", "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        ("403 Forbidden", "SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"),
        ("400 Bad Request", "ExpiredToken", "token has expired"),
        ("500 Internal Server Error", "InternalError", "the store answers InternalError"),
    ],
)
def test_trouble_is_one_line_without_secrets(
    store: Store,
    s3: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    status: str,
    code: str,
    says: str,
) -> None:
    monkeypatch.setattr("cnnvis_ray.storage.addresses.ATTEMPTS", 1)
    store = Store(f"{store.root}/{code}")
    s3.faults.append(Fault("^(GET|PUT|DELETE)", status, code))
    for act in (
        lambda: store.write("a", b""),
        lambda: store.read("a"),
        lambda: store.names("a"),
        lambda: store.files("a"),
        lambda: store.create("a", b""),
    ):
        with pytest.raises(StoreError, match=says) as caught:
            act()
        check_clean(caught.value, store.root)


@pytest.mark.slow  # s3fs waits as well, whatever botocore is told
def test_a_store_that_stays_busy_is_told(
    store: Store, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cnnvis_ray.storage.addresses.ATTEMPTS", 2)
    s3.faults.append(Fault("^PUT", "503 Service Unavailable", "SlowDown"))
    with pytest.raises(StoreError, match="the store answers SlowDown; what is committed stays"):
        store.write("a", b"")


def test_refused_heads_are_told_too(store: Store, s3: S3Server) -> None:
    s3.faults.append(Fault("^(HEAD|GET)", "403 Forbidden", "AccessDenied"))
    with pytest.raises(StoreError, match="denies access"):
        store.exists("run.json")


def check_clean(failure: OSError, address: str) -> None:
    text = f"{failure} {failure!r}"
    assert failure.filename == address
    assert "\n" not in text
    assert SECRET not in text
    assert "AKSECRET" not in text
    assert "127.0.0.1" not in text
    again = pickle.loads(pickle.dumps(failure))  # noqa: S301
    assert (again.errno, again.strerror, again.filename) == (
        failure.errno,
        failure.strerror,
        failure.filename,
    )


def test_a_bucket_that_is_not_there(s3: S3Server) -> None:
    store = Store("s3://no-such-bucket/run")
    for act in (lambda: store.write("a", b""), lambda: store.read("a"), lambda: store.names("")):
        with pytest.raises(StoreError, match="the bucket does not exist"):
            act()


def test_a_server_that_is_gone(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("cnnvis_ray.storage.addresses.ATTEMPTS", 2)
    store = Store("s3://gone/run")
    with pytest.raises(StoreError, match=r"cannot be reached; check AWS_ENDPOINT_URL") as caught:
        store.write("a", b"")
    check_clean(caught.value, store.root)


def test_no_credentials(s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setattr("cnnvis_ray.storage.addresses.ATTEMPTS", 3)
    with pytest.raises(StoreError, match="no credentials; set AWS_ACCESS_KEY_ID"):
        Store("s3://bucket/run").write("a", b"")


@pytest.mark.parametrize(
    "address",
    [
        f"s3://AKSECRET:{SECRET}@bucket/run",
        f"s3://bucket/run?X-Amz-Signature={SECRET}",
        f"s3://bucket/run#key={SECRET}",
        f"https://{SECRET}@host/run",
    ],
)
def test_an_address_with_credentials_is_refused_without_repeating_them(address: str) -> None:
    with pytest.raises(RefusedError, match="set AWS_ACCESS_KEY_ID") as caught:
        Store(address).exists("run.json")
    assert SECRET not in str(caught.value)
    assert "bucket" in str(caught.value) or "host" in str(caught.value)
