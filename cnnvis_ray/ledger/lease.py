"""The lease: one driver at a time works on a run directory.

`lease.json` names its holder and is renewed every few seconds. A holder on this machine whose
process is gone is replaced at once; one on another machine when its beat stood still for
`EXPIRY_SECONDS`, by the holder's clock and by watching, so that a wrong clock alone never takes a
run from a living driver.

Locally every step happens under a lock on the run directory. An object store creates the file by a
conditional write (If-None-Match) where its file system has one. The race that remains: two drivers
that replace the same dead holder within one round trip of an object store, or on a file system
without locks. The later one wins; the other one notices when it reads the lease back, at the
latest at its next beat, and stops with exit code 3. Until then both may do the same unit, which is
harmless: a unit is deterministic and its marker names the files of one attempt.
"""

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from cnnvis_ray.config.sections import Value
from cnnvis_ray.errors import HeldError
from cnnvis_ray.ledger.identity import dump
from cnnvis_ray.storage import Store

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

LEASE = "lease.json"
BEAT_SECONDS = 5.0
EXPIRY_SECONDS = 60.0  # twelve beats: longer than an object store's usual retries
SETTLE_SECONDS = 1.0  # after replacing a holder in an object store, before trusting the result

Progress = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a run, and how far it is.

    Attributes:
        process: what tells it from a later process of the same number on its machine.
        machine: what tells its machine from another one of the same host name.
        since: when it began, UTC.
        renewed: when it last renewed the lease, in seconds since 1970 by its own clock.
        progress: what it works on, for `cnnvis status`.
    """

    token: str
    host: str
    pid: int
    process: str
    since: str
    renewed: float
    beat: int = 0
    progress: Progress = field(default_factory=dict)
    machine: str = ""

    @property
    def is_gone(self) -> bool:
        """Whether it ran on this machine, where this process would see it, and has ended.

        A host name alone does not tell a machine: images of one disk share it.
        """
        here = self.host == socket.gethostname() and self.machine in ("", machine_name())
        namespace = process_name(os.getpid()).partition(" ")[0]
        visible = " " not in self.process or self.process.partition(" ")[0] == namespace
        return here and visible and self.process != process_name(self.pid)

    @property
    def expires_in(self) -> float:
        """Seconds until it counts as dead if it stays silent."""
        return self.renewed + EXPIRY_SECONDS - time.time()

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"


def process_name(pid: int) -> str:
    """Return what tells a process from later ones of its number: namespace and start time."""
    try:
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        return f"{Path(f'/proc/{os.getpid()}/ns/pid').readlink()} {started}"
    except OSError:
        return portable_name(pid)


def machine_name() -> str:
    """Return what tells this machine, since it was started, from others; empty if unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def portable_name(pid: int) -> str:
    """Return whether a process lives, where the system has no /proc for it."""
    if Path("/proc/self").exists():
        return "gone"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "gone"
    except PermissionError:
        pass
    return "alive"


def read_holder(store: Store) -> Holder | None:
    """Read who holds a run; None where nobody does, or the file is damaged."""
    text = read_text(store)
    return None if text is None else parse_holder(text)


def read_text(store: Store) -> bytes | None:
    """Read the lease as it lies there."""
    try:
        return store.read(LEASE)
    except FileNotFoundError:
        return None


def parse_holder(text: bytes) -> Holder | None:
    """Read a lease; None where it is damaged."""
    try:
        holder = Holder(**json.loads(text))
        numbers = int(holder.pid), float(holder.renewed), dict(holder.progress)
    except (ValueError, TypeError):
        return None
    return replace(holder, pid=numbers[0], renewed=numbers[1], progress=numbers[2])


@contextmanager
def locked(store: Store) -> Iterator[None]:
    """Keep other processes of this machine out of the lease for the block."""
    if not store.is_local or fcntl is None:
        yield
        return
    folder = Path(store.path(""))
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a network file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


class Lease:
    """What this process holds; use `hold`."""

    def __init__(self, store: Store, progress: Callable[[], Progress], lose: Callable[[], None]):
        self.store = store
        self.progress = progress
        self.lose = lose
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        pid = os.getpid()
        names = (secrets.token_hex(8), socket.gethostname(), pid, process_name(pid))
        self.holder = Holder(*names, since, time.time(), machine=machine_name())
        self.lost: Holder | None = None
        folder = Path(store.path("")) if store.is_local else Path()
        self.absent = [each for each in folder.parents if not each.exists()]
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.keep_beating, name="lease", daemon=True)

    def acquire(self) -> None:
        """Take the lease.

        Raises:
            HeldError: another driver holds it.
        """
        watched: bytes | None = None
        while not self.try_once(watched):
            watched = self.watch()
        if not self.store.is_local and watched is not None:
            time.sleep(SETTLE_SECONDS)
            self.renew()
            if self.lost:
                raise held(self.store, self.lost)

    def try_once(self, watched: bytes | None) -> bool:
        """Create the lease, over that of a dead holder or one that stayed as it was watched."""
        with locked(self.store):
            text = read_text(self.store)
            earlier = None if text is None else parse_holder(text)
            if text is not None and (text == watched or (earlier is not None and earlier.is_gone)):
                who = (
                    f"held by {earlier}, which is gone" if earlier else "left with a damaged lease"
                )
                log.info("the run was %s: taking it over", who)
                self.store.delete([LEASE])
            return self.create()

    def create(self) -> bool:
        """Write the lease unless another driver's is there."""
        if self.store.create(LEASE, self.text()):
            return True
        present = read_holder(self.store)  # a repeated request may have met its own file
        return present is not None and present.token == self.holder.token

    def watch(self) -> bytes | None:
        """Watch a silent holder on another machine, or a damaged lease, for two beats.

        Returns:
            What lay there; None where it went meanwhile.

        Raises:
            HeldError: the holder is alive.
        """
        text = read_text(self.store)
        if text is None:
            time.sleep(0.1)
            return None
        earlier = parse_holder(text)
        if earlier is not None and earlier.expires_in > 0 and not earlier.is_gone:
            raise held(self.store, earlier)
        time.sleep(0 if earlier is not None and earlier.is_gone else 2 * BEAT_SECONDS)
        return text

    def text(self) -> bytes:
        """Write the holder with its progress."""
        self.holder = replace(
            self.holder,
            renewed=time.time(),
            beat=self.holder.beat + 1,
            progress=dict(self.progress()),
        )
        return dump(asdict(self.holder))

    def renew(self) -> None:
        """Renew the lease; notice if another driver took the run."""
        with locked(self.store):
            present = read_holder(self.store)
            if present is not None and present.token != self.holder.token:
                self.lost = present
            else:
                self.store.write(LEASE, self.text())

    def keep_beating(self) -> None:
        """Renew until the end; tell the driver when the lease is lost."""
        while not self.ended.wait(BEAT_SECONDS):
            try:
                self.renew()
            except Exception as failure:  # the run goes on; another driver takes it if this lasts
                log.warning("the lease could not be renewed: %r", failure)
            if self.lost:
                self.lose()
                return

    def release(self) -> None:
        """Release the lease."""
        self.ended.set()
        self.thread.join()
        with suppress(OSError), locked(self.store):
            present = read_holder(self.store)
            if present is not None and present.token == self.holder.token:
                self.store.delete([LEASE])
        if self.store.is_local:
            with suppress(OSError):  # a refused run leaves no empty folder, nor one above it
                for folder in (Path(self.store.path("")), *self.absent):
                    folder.rmdir()


def held(store: Store, holder: Holder) -> HeldError:
    """Return the refusal that names who holds a run, and until when at most."""
    return HeldError(
        f"{store.root!r} is held by {holder}; wait for it, or end it; if its machine is gone the "
        f"hold ends in {max(holder.expires_in, 0):.0f} s"
    )


@contextmanager
def hold(
    store: Store, progress: Callable[[], Progress] = dict, lose: Callable[[], None] = lambda: None
) -> Iterator[Lease]:
    """Hold a run for the block.

    Args:
        store: the run.
        progress: asked at each beat.
        lose: called, from a thread, when another driver took the run.

    Raises:
        HeldError: another driver holds the run, or took it meanwhile.
    """
    lease = Lease(store, progress, lose)
    lease.acquire()
    lease.thread.start()
    try:
        yield lease
    except Exception:
        if lease.lost:
            raise held(store, lease.lost) from None
        raise
    finally:
        lease.release()
