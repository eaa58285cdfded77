"""One driver at a time on a run in an object store, against a real server."""

import threading
import time
from dataclasses import asdict, replace

import pytest

from cnnvis_ray.errors import HeldError
from cnnvis_ray.ledger import hold, lease, read_holder
from cnnvis_ray.ledger.lease import EXPIRY_SECONDS, LEASE, Holder
from cnnvis_ray.ledger.passes import dump
from cnnvis_ray.storage import Store

FAR_AWAY = Holder("token", "another-machine", 17, "", "2026-11-22T01:02:03Z", 0.0)


@pytest.fixture
def store(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A run in a bucket, with a beat that a test can wait for."""
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.5)
    return Store(f"{bucket}/run")


def write_holder(store: Store, renewed: float) -> None:
    store.write(LEASE, dump(asdict(replace(FAR_AWAY, renewed=renewed))))


def test_the_second_driver_is_refused_until_the_first_is_done(store: Store) -> None:
    with hold(store), pytest.raises(HeldError, match="is held by process"), hold(store):
        raise AssertionError
    assert not store.exists(LEASE)


def test_a_silent_holder_elsewhere_is_replaced_and_a_living_one_is_not(store: Store) -> None:
    write_holder(store, time.time())
    with pytest.raises(HeldError, match="another-machine"), hold(store):
        raise AssertionError
    write_holder(store, time.time() - EXPIRY_SECONDS - 1)
    with hold(store):
        holder = read_holder(store)
        assert holder is not None
        assert holder.host != "another-machine"


def test_a_stolen_lease_is_noticed_and_left_to_the_thief(store: Store) -> None:
    lost = threading.Event()
    with pytest.raises(HeldError, match="another-machine"), hold(store, lose=lost.set):
        write_holder(store, time.time())
        assert lost.wait(10)
        raise HeldError("stopped")
    holder = read_holder(store)
    assert holder is not None
    assert holder.host == "another-machine"


def test_of_many_contenders_for_a_dead_lease_one_goes_on(store: Store) -> None:
    write_holder(store, 0.0)
    start, ended, working = threading.Barrier(4), threading.Barrier(4), []

    def contend() -> None:
        start.wait()
        try:
            with hold(store) as held:
                time.sleep(1)  # two that got it in the same moment have noticed by now
                if not held.lost:
                    working.append(threading.get_ident())
                ended.wait()
        except HeldError:
            ended.wait()

    contenders = [threading.Thread(target=contend) for _ in range(4)]
    for contender in contenders:
        contender.start()
    for contender in contenders:
        contender.join(60)
    assert len(working) == 1
