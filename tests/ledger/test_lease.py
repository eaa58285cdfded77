"""One driver at a time: who is refused, and when a silent holder is replaced."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cnnvis_ray.errors import HeldError, RefusedError
from cnnvis_ray.ledger import hold, lease, read_holder
from cnnvis_ray.ledger.lease import EXPIRY_SECONDS, LEASE
from cnnvis_ray.storage import Store
from tests.ledger.holders import FAR_AWAY, contend, write_holder

HOLD_AND_WAIT = """
import sys, time
from cnnvis_ray.ledger import hold
from cnnvis_ray.storage import Store
with hold(Store(sys.argv[1])):
    print("holding", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "run"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.1)


def test_the_second_driver_is_refused_and_told_who_holds_it(store: Store) -> None:
    with hold(store):
        by_this = f"process {os.getpid()} on .* since 20"
        with pytest.raises(HeldError, match=by_this) as refused, hold(store):
            raise AssertionError
        assert refused.value.exit_code == 3
        assert read_holder(store) is not None
    assert read_holder(store) is None
    with hold(store):
        pass


def test_a_refused_run_leaves_no_folder_above_it_either(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "runs" / "one"))
    (tmp_path / "kept").mkdir()
    for nested in (store, Store(str(tmp_path / "kept" / "two"))):
        with pytest.raises(RefusedError), hold(nested):
            raise RefusedError("no")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_refused_run_leaves_no_folder(store: Store) -> None:
    with hold(store):
        pass
    assert not Path(store.root).exists()


def test_a_killed_driver_is_replaced_at_once(store: Store) -> None:
    command = [sys.executable, "-c", HOLD_AND_WAIT, store.root]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "holding\n"
        with pytest.raises(HeldError, match=f"process {child.pid} "), hold(store):
            raise AssertionError
        child.send_signal(signal.SIGKILL)
        child.wait()
        with hold(store):
            holder = read_holder(store)
            assert holder is not None
            assert holder.pid == os.getpid()


def test_a_holder_elsewhere_is_waited_for_until_it_expires(store: Store, quick: None) -> None:
    write_holder(store, replace(FAR_AWAY, renewed=time.time()))
    with pytest.raises(HeldError, match="another-machine") as refused, hold(store):
        raise AssertionError
    assert "ends in 60 s" in str(refused.value) or "ends in 59 s" in str(refused.value)
    write_holder(store, replace(FAR_AWAY, renewed=time.time() - EXPIRY_SECONDS - 1))
    with hold(store):
        holder = read_holder(store)
        assert holder is not None
        assert holder.pid == os.getpid()


def test_a_living_holder_whose_clock_is_late_is_not_replaced(store: Store, quick: None) -> None:
    late = replace(FAR_AWAY, renewed=time.time() - 10 * EXPIRY_SECONDS)
    write_holder(store, late)

    def beat() -> None:
        for number in range(8):
            time.sleep(0.1)
            write_holder(store, replace(late, beat=number + 1, renewed=time.time()))

    beating = threading.Thread(target=beat)
    beating.start()
    with pytest.raises(HeldError, match="another-machine"), hold(store):
        raise AssertionError
    beating.join()


def test_a_driver_that_lost_its_lease_is_told_and_leaves_it_alone(
    store: Store, quick: None
) -> None:
    lost = threading.Event()
    with pytest.raises(HeldError, match="another-machine"), hold(store, lose=lost.set):
        write_holder(store, replace(FAR_AWAY, renewed=time.time()))
        assert lost.wait(5)
        raise HeldError("stopped")
    holder = read_holder(store)
    assert holder is not None
    assert holder.host == "another-machine"


def test_the_lease_carries_progress(store: Store, quick: None) -> None:
    done = [0]
    with hold(store, lambda: {"done": done[0]}):
        done[0] = 7
        for _ in range(50):
            if json.loads(store.read(LEASE))["progress"] == {"done": 7}:
                break
            time.sleep(0.05)
        else:
            raise AssertionError


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b"\xff\xfe", b'{"token": 1}'])
@pytest.mark.parametrize("root", ["", "memory://garbage/run"])
@pytest.mark.timeout(30)
def test_a_damaged_lease_is_replaced(store: Store, quick: None, root: str, garbage: bytes) -> None:
    store = Store(root) if root else store
    store.write(LEASE, garbage)
    assert read_holder(store) is None
    with hold(store):
        holder = read_holder(store)
        assert holder is not None
        assert holder.pid == os.getpid()
    assert not store.exists(LEASE)


def test_a_lease_of_wrong_types_is_damaged(store: Store) -> None:
    for name, value in {"renewed": "soon", "pid": None, "progress": 3}.items():
        write_holder(store, replace(FAR_AWAY, **{name: value}))  # type: ignore[arg-type]
        assert read_holder(store) is None


def test_a_machine_of_the_same_name_is_another_one(store: Store) -> None:
    with hold(store):
        own = read_holder(store)
    assert own is not None
    assert not own.is_gone
    assert replace(own, process="gone").is_gone
    assert not replace(own, process="gone", machine="another").is_gone


def test_the_heart_beats_on_after_any_failure(store: Store, quick: None) -> None:
    asked = [0]

    def progress() -> dict[str, int]:
        asked[0] += 1
        if asked[0] == 2:
            raise RuntimeError
        return {"asked": asked[0]}

    with hold(store, progress):
        wait_until = time.monotonic() + 5
        while asked[0] < 4 and time.monotonic() < wait_until:
            time.sleep(0.02)
    assert asked[0] >= 4


def test_of_many_contenders_for_a_dead_lease_one_wins(store: Store, quick: None) -> None:
    write_holder(store, replace(FAR_AWAY, renewed=0.0))
    assert contend(store, 6) == 1


def test_an_object_store_holds_a_lease(quick: None) -> None:
    store = Store("memory://lease-test/run")
    with hold(store), pytest.raises(HeldError), hold(store):
        raise AssertionError
    assert not store.exists(LEASE)
    write_holder(store, replace(FAR_AWAY, renewed=0.0))
    with hold(store):
        assert store.exists(LEASE)
