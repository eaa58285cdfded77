"""An object store in memory that counts its requests: `Store("counted://name/run")`."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

REQUESTS = ("cat_file", "find", "info", "ls", "open", "pipe_file", "put_file", "rm_file")


class CountingFileSystem(MemoryFileSystem):  # type: ignore[misc]
    """A memory file system of its own that counts what a store requests of it."""

    protocol = "counted"
    store: dict[str, object] = {}  # noqa: RUF012 - as in the class above
    pseudo_dirs: list[str] = [""]  # noqa: RUF012 - as in the class above
    requests: Counter[str] = Counter()  # noqa: RUF012 - of all instances
    lock = Lock()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("counted://")))

    def __getattribute__(self, name: str) -> object:
        if name in REQUESTS:
            called = object.__getattribute__(self, name)

            def count(path: str, *arguments: object, **settings: object) -> object:
                with CountingFileSystem.lock:
                    CountingFileSystem.requests[name] += 1
                return called(path, *arguments, **settings)

            return count
        return object.__getattribute__(self, name)


fsspec.register_implementation("counted", CountingFileSystem, clobber=True)


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Count the requests of all counted stores while the block lasts, by method.

    A method that the file system builds on another counts both, so read the method that the store
    calls: ``cat_file`` for a file, ``find`` and ``ls`` for a listing.
    """
    counted: Counter[str] = Counter()
    CountingFileSystem.requests = counted
    try:
        yield counted
    finally:
        CountingFileSystem.requests = Counter()
