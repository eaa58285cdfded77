"""A folder tree of image files in an object store; the key is the path below the folder.

What counts as an image is what counts in a local folder (`names`). The version is size and ETag.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from cnnvis_ray.errors import ImageRejectedError, RefusedError
from cnnvis_ray.images.entries import Entry, Listing
from cnnvis_ray.images.folder import MAX_FILE_BYTES
from cnnvis_ray.images.labels import FindLabel, label_by_folder
from cnnvis_ray.images.names import SUFFIXES, is_hidden, is_image_name
from cnnvis_ray.images.shards import refusing
from cnnvis_ray.images.sources import Reader, Source
from cnnvis_ray.storage import locate, redact, store_errors, version_of
from cnnvis_ray.storage.store_errors import error_code

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RemoteFolderSource(Source):
    """A prefix of an object store.

    Attributes:
        address: the folder's URI.
        limit: how many of the first images are used, or None for all.
        run_dir: the run's own URI, passed over if it lies in the folder; may be empty.
    """

    address: str
    limit: int | None = None
    run_dir: str = ""

    def list(self) -> Listing:
        """List the image files, sorted by path; a page of 1,000 costs one request."""
        with refusing(self.address):
            file_system, root = locate(self.address)
            found = file_system.find(root, detail=True)
        start = len(root.rstrip("/")) + 1
        versions = {path[start:]: version_of(info) for path, info in found.items()}
        runs = find_runs(versions, self.address, self.run_dir)
        inside = [key for key in versions if not key.startswith(tuple(f"{run}/" for run in runs))]
        images = sorted(filter(is_image_path, inside), key=str.encode)
        if not images:
            raise RefusedError(
                f"images.source {redact(self.address)!r} holds no image ({len(inside)} other "
                f"objects); image files end in {' '.join(sorted(SUFFIXES))}"
            )
        if others := len(inside) - len(images):
            logger.info("%s: passed over %d objects that are not images", self.address, others)
        for run in runs:
            logger.warning("%s: passed over the run directory %s in it", self.address, run)
        return Listing(tuple(Entry(key, versions[key]) for key in images[: self.limit]))

    def open(self) -> "RemoteFolderReader":
        """Open for reading."""
        return RemoteFolderReader(self.address)

    def find_labels(self, name: str, entries: Iterable[Entry]) -> FindLabel | None:
        """Find labels in the path: ``folder`` is the first sub-folder, ``parent`` the last."""
        return label_by_folder(name, (entry.key for entry in entries))


def find_runs(paths: Iterable[str], address: str, run_dir: str) -> list[str]:
    """Return the run directories below a folder: the run's own, and what looks like one."""
    marked = {path.removesuffix("/run.json") for path in paths if path.endswith("/run.json")}
    runs = marked & {path.rpartition("/passes/")[0] for path in paths if "/passes/" in path}
    own = run_dir.rstrip("/").removeprefix(f"{address.rstrip('/')}/")
    if own != run_dir.rstrip("/") and any(path.startswith(f"{own}/") for path in paths):
        runs.add(own)
    return sorted(runs)


def is_image_path(path: str) -> bool:
    """Whether an object is an image that a local folder would list."""
    parts = path.encode().split(b"/")
    return not is_hidden(parts) and b".." not in parts and is_image_name(parts[-1])


class RemoteFolderReader(Reader):
    """Reads one object after the other; the file system may be used from any thread."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.file_system, self.root = locate(address)

    def fetch(self, key: str) -> bytes:
        """Read one object whole, in one request."""
        try:
            with store_errors(self.address):
                data = self.read(f"{self.root.rstrip('/')}/{key}")
        except FileNotFoundError as absent:
            if error_code(absent) in ("", "404", "NoSuchKey"):
                raise ImageRejectedError("read", "the object does not exist any more") from None
            raise
        if len(data) > MAX_FILE_BYTES:
            raise ImageRejectedError("read", f"an object above {MAX_FILE_BYTES} bytes")
        return data

    def read(self, path: str) -> bytes:
        """Read an object up to a limit; an empty one has no range to request."""
        try:
            return bytes(self.file_system.cat_file(path, start=0, end=MAX_FILE_BYTES + 1))
        except OSError as failure:
            if error_code(failure) != "InvalidRange":
                raise
            return b""

    def close(self) -> None:
        """Do nothing: no handle is held."""
