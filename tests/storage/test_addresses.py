"""Addresses: what is refused, what is struck out, and what a version is made of."""

from datetime import datetime

import pytest

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.storage import Store, redact, version_of
from cnnvis_ray.storage.addresses import check_address, options


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("s3://key:secret@bucket/a@b", "s3://***@bucket/a@b"),
        ("s3://bucket/a?sig=secret", "s3://bucket/a?***"),
        ("https://host/w.pth#secret", "https://host/w.pth?***"),
        ("s3://bucket/user@home/a.tar", "s3://bucket/user@home/a.tar"),
        ("photos/a.jpg", "photos/a.jpg"),
    ],
)
def test_what_may_be_secret_is_struck_out(address: str, shown: str) -> None:
    assert redact(address) == shown


@pytest.mark.parametrize(
    "address", ["runs/a@b?c#d", "s3://bucket/user@home", "s3://bucket/0?.tar", "gs://b/[0-9]*"]
)
def test_patterns_and_signs_in_names_are_no_credentials(address: str) -> None:
    check_address(address)


@pytest.mark.parametrize("protocol", ["s3", "gs"])
def test_a_missing_package_is_named(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ImportError("Install it")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(RefusedError, match=rf"pip install 'cnnvis_ray\[{protocol}\]'"):
        Store(f"{protocol}://bucket/run").exists("run.json")


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(RefusedError, match="cannot use 's4://bucket/run'"):
        Store("s4://bucket/run").exists("run.json")


def test_listings_are_never_cached_and_requests_are_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AWS_MAX_ATTEMPTS", raising=False)
    assert options("gs") == {"use_listings_cache": False}
    s3 = options("s3")
    assert s3["use_listings_cache"] is False
    assert "total_max_attempts" in str(s3["config_kwargs"])
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "9")
    assert "total_max_attempts" not in str(options("s3")["config_kwargs"])


def test_a_version_is_size_and_etag_or_time() -> None:
    assert version_of({"size": 7, "ETag": '"abc"', "LastModified": 1}) == "7-abc"
    assert version_of({"size": 7, "mtime": "2026"}) == "7-2026"
    assert version_of({"size": 7, "created": datetime(2026, 1, 2)}) == "7-2026-01-02 00:00:00"
    assert version_of({"size": 7}) == "7"
