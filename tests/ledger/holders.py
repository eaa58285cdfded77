"""Holders of a lease elsewhere, and drivers that contend for one."""

import threading
import time
from dataclasses import asdict

from cnnvis_ray.errors import HeldError
from cnnvis_ray.ledger import dump, hold
from cnnvis_ray.ledger.lease import LEASE, Holder
from cnnvis_ray.storage import Store

FAR_AWAY = Holder("token", "another-machine", 17, "", "2026-11-22T01:02:03Z", 0.0)


def write_holder(store: Store, holder: Holder) -> None:
    store.write(LEASE, dump(asdict(holder)))


def contend(store: Store, count: int, settle_seconds: float = 0.0) -> int:
    """Let many drivers try at once; count those that hold the lease after a while."""
    start, ended = threading.Barrier(count), threading.Barrier(count)
    working: list[int] = []

    def drive() -> None:
        start.wait()
        try:
            with hold(store) as held:
                time.sleep(settle_seconds)
                if not held.lost:
                    working.append(threading.get_ident())
                ended.wait()
        except HeldError:
            ended.wait()

    drivers = [threading.Thread(target=drive) for _ in range(count)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join(60)
        assert not driver.is_alive()
    return len(working)
