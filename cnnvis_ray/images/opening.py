"""From the configuration to the source that it names.

`SOURCES` is the extension point: a kind of source is a module and a line in it. A kind is asked
about one address at a time, an absolute path or a URI; the first that takes it opens the source.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cnnvis_ray.config import Images
from cnnvis_ray.errors import RefusedError, near
from cnnvis_ray.images.digits import DigitsSource
from cnnvis_ray.images.folder import FolderSource
from cnnvis_ray.images.hdf5 import Hdf5Source, inspect
from cnnvis_ray.images.labels import is_table
from cnnvis_ray.images.parquet import ParquetSource
from cnnvis_ray.images.remote import RemoteFolderSource
from cnnvis_ray.images.rows import RANGE
from cnnvis_ray.images.shards import Shard, find_shards, is_glob, refusing
from cnnvis_ray.images.sources import Source
from cnnvis_ray.images.tars import TarSource
from cnnvis_ray.storage import check_address, is_local, locate, redact

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
PROTOCOLS = ("s3", "s3a", "gs", "gcs", "memory")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What ``images.source`` names, resolved.

    Attributes:
        images: the section of the configuration.
        identity: kind and absolute places.
        shards: the files (one folder, for a folder), in order.
        run_dir: the run's own directory, absolute; may be empty.
    """

    images: Images
    identity: str
    shards: tuple[Shard, ...]
    run_dir: str

    @property
    def address(self) -> str:
        """The only address."""
        return self.shards[0].address

    @property
    def indices(self) -> tuple[int, ...] | str | None:
        """``images.indices`` as a source keeps them."""
        given = self.images.indices
        return tuple(given) if isinstance(given, list) else given

    def refuse_indices(self, kind: str) -> None:
        """Refuse ``images.indices`` where images have names and no numbers."""
        if self.images.indices is not None:
            raise RefusedError(
                "images.indices choose rows of an HDF5 stack, of Parquet files or of digits, and "
                f"{self.images.source!r} is {kind}; use images.limit or fewer images"
            )


@dataclass(frozen=True, slots=True)
class SourceKind:
    """How one kind of source is recognized and opened.

    Attributes:
        takes: whether an address (an absolute path, a URI, or a word as configured) is of it.
        open: makes the source and checks it without reading images.
        allowed: what it takes, as a refusal names it.
        many: whether a list or a glob may name several.
    """

    takes: Callable[[str], bool]
    open: Callable[[Wanted], Source]
    allowed: str
    many: bool = False


def open_digits(wanted: Wanted) -> Source:
    """Open the embedded digits."""
    return DigitsSource("digits", wanted.indices, wanted.images.limit)


def open_hdf5(wanted: Wanted) -> Source:
    """Open a stack; its data set is part of the identity."""
    if "://" in wanted.address:
        raise RefusedError(
            f"images.source {redact(wanted.address)!r}: HDF5 is not read from an object store, "
            "where every part of an index costs a request; copy it to a disk that all nodes see, "
            "or write it as Parquet"
        )
    path, dataset = Path(wanted.address), wanted.images.hdf5_dataset
    check_exists(wanted.address)
    inspect(path, dataset)
    dataset = dataset.strip("/")
    identity = f"{wanted.identity}:{dataset}"
    return Hdf5Source(identity, path, dataset, wanted.indices, wanted.images.limit)


def open_parquet(wanted: Wanted) -> Source:
    """Open Parquet files."""
    images = wanted.images
    return ParquetSource(
        wanted.identity, wanted.shards, images.image_column, wanted.indices, images.limit
    )


def open_tars(wanted: Wanted) -> Source:
    """Open plain tar archives."""
    for shard in wanted.shards:
        if shard.address.lower().endswith(COMPRESSED):
            raise RefusedError(
                f"images.source {shard.address!r} is a compressed archive, which has no random "
                "access; unpack it to a plain .tar (images hardly compress)"
            )
    wanted.refuse_indices("archives of named members")
    return TarSource(wanted.identity, wanted.shards, wanted.images.limit)


def open_folder(wanted: Wanted) -> Source:
    """Open a folder on this machine or in an object store."""
    wanted.refuse_indices("a folder")
    address, run_dir, limit = wanted.address, wanted.run_dir, wanted.images.limit
    if run_dir and address.rstrip("/") == run_dir.rstrip("/"):
        raise RefusedError(
            f"images.source {redact(address)!r} is also run_dir, so the run's pictures would be "
            "taken for images; take another run_dir"
        )
    if "://" not in address:
        return FolderSource(wanted.identity, Path(address), limit, run_dir)
    with refusing(address):
        locate(address)
    return RemoteFolderSource(wanted.identity, address, limit, run_dir)


def has_suffix(*suffixes: str) -> Callable[[str], bool]:
    """Return a check for files, not folders, whose names end in one of some suffixes."""

    def takes(address: str) -> bool:
        folder = "://" not in address and os.path.isdir(address)  # noqa: PTH112 - never raises
        return not folder and address.lower().endswith(suffixes)

    return takes


def is_folder(address: str) -> bool:
    """Whether an address is that of a folder; in an object store every prefix may be one."""
    return "://" in address or os.path.isdir(address)  # noqa: PTH112 - never raises


SOURCES: dict[str, SourceKind] = {
    "digits": SourceKind(lambda address: address == "digits", open_digits, "digits"),
    "hdf5": SourceKind(has_suffix(".h5", ".hdf5"), open_hdf5, "a file *.h5 or *.hdf5"),
    "parquet": SourceKind(has_suffix(".parquet"), open_parquet, "*.parquet", many=True),
    "tar": SourceKind(has_suffix(".tar", *COMPRESSED), open_tars, "*.tar", many=True),
    "folder": SourceKind(is_folder, open_folder, "a folder of images"),
}
"""Kind, as identities begin with it, to how it is recognized and opened; the first match wins."""


def open_source(images: Images, run_dir: str = "") -> Source:
    """Open the source that ``images.source`` names; its images are not read.

    The word ``digits`` is the embedded set; a folder of that name is ``./digits``. A string may be
    a path, a URI or a glob; a list of them names shards of one kind.

    Args:
        images: the section of the configuration.
        run_dir: the run's directory: if it lies in the source, the listing passes it over.

    Raises:
        RefusedError: the source does not exist, its kind is not supported, or it cannot work.
    """
    configured = [images.source] if isinstance(images.source, str) else images.source
    addresses = [absolute_address(one) for one in configured]
    several = isinstance(images.source, list) or is_glob(addresses[0])
    run_dir = absolute_address(run_dir) if run_dir else ""
    if several:
        shards = find_shards(addresses, run_dir)
    elif (kind := kind_of(addresses[0])) and SOURCES[kind].many:
        shards = find_shards(addresses)
    else:
        shards = (Shard("", addresses[0]),)
    kinds = sorted({kind_of(shard.address) for shard in shards})
    if len(kinds) > 1:
        found = ", ".join(kind or "unknown" for kind in kinds)
        raise RefusedError(f"images.source names files of several kinds: {found}; {allowed()}")
    kind = kinds[0]
    if not kind and not several:
        check_exists(addresses[0])
        raise RefusedError(f"images.source {configured[0]!r} is of no supported kind; {allowed()}")
    if several and not (kind and SOURCES[kind].many):
        raise RefusedError(
            f"images.source {', '.join(configured)!r}: a list or glob of "
            f"{kind or 'files of no supported kind'} is not supported; {allowed()}"
        )
    identity = f"{kind}:{', '.join(addresses)}"
    return SOURCES[kind].open(Wanted(images, identity, shards, run_dir))


def kind_of(address: str) -> str:
    """Return the kind of an address; empty where no kind takes it."""
    return next((name for name, kind in SOURCES.items() if kind.takes(address)), "")


def allowed() -> str:
    """Return what may be given, as the end of a refusal."""
    one = ", ".join(kind.allowed for kind in reversed(SOURCES.values()) if not kind.many)
    many = " or ".join(kind.allowed for kind in SOURCES.values() if kind.many)
    return (
        f"allowed are {one}, or files {many} (one, a list or a glob of one kind); the same but "
        "HDF5 below s3:// or gs://"
    )


def check_exists(address: str) -> None:
    """Refuse a path that does not exist or cannot be reached."""
    try:
        os.stat(address)  # noqa: PTH116 - Path.stat does the same
    except (OSError, ValueError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else failure
        name = PurePosixPath(address).name
        hint = "; did you mean digits?" if near(name, ["digits"]) else ""
        raise RefusedError(f"images.source {address!r}: {reason}{hint}; {allowed()}") from None


def absolute_address(given: str) -> str:
    """Return a local path as an absolute one; words of `SOURCES` and checked URIs stay.

    Raises:
        RefusedError: it carries credentials, or its protocol is not supported.
    """
    check_address(given)
    protocol, mark, _ = given.partition("://")
    if not mark:
        return given if given == "digits" else absolute_path(given)
    if protocol not in (*PROTOCOLS, "file"):
        raise RefusedError(f"images.source {given!r}: no address {protocol}://; {allowed()}")
    file_system, path = locate(given)
    return path if is_local(file_system) else given.rstrip("/")


def absolute_path(path: str) -> str:
    """Return a path as an absolute one without ``..``; links are followed only below a ``..``."""
    whole = Path(os.path.expanduser(path)).absolute()  # noqa: PTH111 - never raises
    if ".." not in whole.parts or "\0" in path:
        return str(whole)
    last = len(whole.parts) - whole.parts[::-1].index("..")
    real = os.path.realpath(Path(*whole.parts[:last]))
    return str(Path(real, *whole.parts[last:]))


def absolute_source(images: Images) -> Images:
    """Return the section with absolute places, so that it means the same from any folder.

    ``source``, a table of ``labels``, a file of ``label_names`` and a file of ``indices`` become
    absolute; everything else stays.

    Raises:
        RefusedError: an address of the source cannot be used.
    """
    source: str | list[str]
    if isinstance(images.source, str):
        source = absolute_address(images.source)
    else:
        source = [absolute_address(one) for one in images.source]
    changes: dict[str, object] = {"source": source}
    if images.labels is not None and is_table(images.labels):
        changes["labels"] = absolute_file(images.labels)
    if isinstance(images.label_names, str):
        changes["label_names"] = absolute_file(images.label_names)
    if isinstance(images.indices, str) and not RANGE.fullmatch(images.indices):
        changes["indices"] = absolute_path(images.indices)
    return images.model_copy(update=changes)


def absolute_file(address: str) -> str:
    """Return a path as an absolute one and a URI as it is."""
    return address if "://" in address else absolute_path(address)


def is_same_source(stored: str, identity: str) -> bool:
    """Whether an identity that a run stored, perhaps with relative places, is another's.

    Relative places are resolved from the present working directory.

    Args:
        stored: ``images.source`` in the identity of ``run.json``.
        identity: of the source that is open now.
    """
    kind, _, places = stored.partition(":")
    if stored == identity or kind not in ("hdf5", "parquet", "tar", "folder"):
        return stored == identity
    places, mark, dataset = places.rpartition(":") if kind == "hdf5" else (places, "", "")
    readings = ([places], places.split(", "))  # a path may hold a comma itself
    return any(
        f"{kind}:{', '.join(map(absolute_stored, reading))}{mark}{dataset}" == identity
        for reading in readings
    )


def absolute_stored(place: str) -> str:
    """Return a place of a stored identity as an absolute one; ``file://`` had lost a slash."""
    place = re.sub("^file:/+", "/", place)
    return place.rstrip("/") if "://" in place else absolute_path(place)
