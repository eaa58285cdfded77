"""One driver at a time on a run in an object store, against a real server."""

import threading
import time
from dataclasses import replace

import pytest

from cnnvis_ray.errors import HeldError
from cnnvis_ray.ledger import hold, lease, read_holder
from cnnvis_ray.ledger.lease import EXPIRY_SECONDS, LEASE
from cnnvis_ray.storage import Store
from tests.ledger.holders import FAR_AWAY, contend, write_holder


@pytest.fixture
def store(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A run in a bucket, with a beat that a test can wait for."""
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.5)
    return Store(f"{bucket}/run")


def test_the_second_driver_is_refused_until_the_first_is_done(store: Store) -> None:
    with hold(store), pytest.raises(HeldError, match="is held by process"), hold(store):
        raise AssertionError
    assert not store.exists(LEASE)


def test_a_silent_holder_elsewhere_is_replaced_and_a_living_one_is_not(store: Store) -> None:
    write_holder(store, replace(FAR_AWAY, renewed=time.time()))
    with pytest.raises(HeldError, match="another-machine"), hold(store):
        raise AssertionError
    write_holder(store, replace(FAR_AWAY, renewed=time.time() - EXPIRY_SECONDS - 1))
    with hold(store):
        holder = read_holder(store)
        assert holder is not None
        assert holder.host != "another-machine"


def test_a_stolen_lease_is_noticed_and_left_to_the_thief(store: Store) -> None:
    lost = threading.Event()
    with pytest.raises(HeldError, match="another-machine"), hold(store, lose=lost.set):
        write_holder(store, replace(FAR_AWAY, renewed=time.time()))
        assert lost.wait(10)
        raise HeldError("stopped")
    holder = read_holder(store)
    assert holder is not None
    assert holder.host == "another-machine"


def test_of_many_contenders_for_a_dead_lease_one_goes_on(store: Store) -> None:
    write_holder(store, FAR_AWAY)
    # two that took it in the same moment have noticed after a second
    assert contend(store, 4, settle_seconds=1) == 1
