"""Verification: every file of a run against its marker, what no marker names, and what is noted.

A file is checked for its size, its SHA-256, its rows, its schema (the same in all shards of a
folder) and its ids: those of a unit's rows and rejects are disjoint and together the unit's.
Verification changes nothing but `damage.json`; the next run, which holds the run, makes what it
names due again (`Ledger.heal`).
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.ledger.identity import dump, read_identity
from cnnvis_ray.ledger.passes import Marker, Pass, marker_path
from cnnvis_ray.ledger.plan import read_plan
from cnnvis_ray.ledger.units import ImageUnit, channels_named, image_id
from cnnvis_ray.ledger.view import DAMAGE, Ledger
from cnnvis_ray.storage import ShardFile, Store, read_table
from cnnvis_ray.storage.stores import LEFTOVER

BLOCK_BYTES = 8 << 20
SHARD = re.compile(r"\d{6}\.[rc][0-9a-f.]+\.[0-9a-f]{8}\.\w+")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        path: the file or folder.
        what: what is wrong with it.
        owner: the pass of the damaged unit, where the next run can make it again.
        unit: that unit.
    """

    path: str
    what: str
    owner: Pass | None = None
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


@dataclass(slots=True)
class Verifier:
    """Checks a run; remembers the schema of each folder."""

    ledger: Ledger
    schemas: dict[str, Counter[pa.Schema]] = field(default_factory=dict)
    num_files: int = 0

    @property
    def store(self) -> Store:
        """The run's store."""
        return self.ledger.store

    def findings(self) -> Iterator[Finding]:
        """Return everything that is damaged, missing or not done."""
        try:
            if read_identity(self.store) is None:
                yield Finding("run.json", "is missing")
        except RefusedError as refusal:
            yield Finding("run.json", str(refusal))
        plan_damage = list(self.check_plan())
        yield from plan_damage
        if plan_damage:  # without its plan a run's rows cannot be checked
            return
        planned = {unit.name: unit for unit in read_plan(self.store).units()}
        live = {name for name, unit in planned.items() if len(unit)}
        rejects: dict[str, frozenset[int]] = {}
        for stage in self.ledger.stages:
            for owner in self.ledger.passes(stage):
                markers = self.ledger.markers(owner)
                yield from self.check_done(owner, live if owner.kind == "images" else set())
                for marker in markers.values():
                    if stage == "images":
                        rejects[marker.unit] = frozenset(marker.rejects)
                    wanted = wanted_ids(stage, marker, planned, rejects)
                    yield from self.check_marker(owner, marker, wanted)
        for path in [*self.ledger.damaged, *sorted(self.ledger.doomed)]:
            yield Finding(path, "is damaged: cannot be read, or noted before")

    def check_plan(self) -> Iterator[Finding]:
        """Check that every segment of the plan can be read."""
        for name in self.store.names("plan"):
            if name.endswith(".parquet") and not name.startswith(LEFTOVER):
                try:
                    read_table(self.store, f"plan/{name}")
                except (pa.ArrowException, OSError) as failure:
                    words = " ".join(str(failure).split())[:200]
                    yield Finding(f"plan/{name}", f"cannot be read: {words}")

    def check_done(self, owner: Pass, expected: set[str]) -> Iterator[Finding]:
        """Return the units without a marker, and markers of units that do not exist any more."""
        finished = self.ledger.done(owner)
        if not finished and owner.kind != "images" and not self.ledger.listed[owner.name]:
            yield Finding(f"passes/{owner.name}", "not done yet")
        damaged = {path.rpartition("/")[2][:-5] for path in self.ledger.doomed}
        for unit in sorted(expected - finished - damaged):
            yield Finding(marker_path(owner, unit), "is missing: the unit is due")
        if expected:
            for unit in sorted(finished - expected):
                yield Finding(marker_path(owner, unit), "its unit is gone", owner, unit)

    def check_marker(
        self, owner: Pass, marker: Marker, wanted: frozenset[int] | None
    ) -> Iterator[Finding]:
        """Check a unit's files, then its ids if the files are whole."""
        found = []
        for file in marker.files:
            self.num_files += 1
            what = self.check_file(file)
            if what:
                found.append(Finding(file.path, what, owner, marker.unit))
        if not found and wanted is not None:
            what = self.check_ids(marker, wanted)
            if what:
                found.append(Finding(marker.files[0].path, what, owner, marker.unit))
        yield from found

    def check_file(self, file: ShardFile) -> str:
        """Return what is wrong with one file; empty if nothing is."""
        try:
            size, digest = digest_of(self.store, file.path)
        except FileNotFoundError:
            return "is missing"
        if size != file.bytes:
            return f"has {size:,} bytes, its marker says {file.bytes:,}"
        if digest != file.sha256:
            return "its checksum is not that of its marker"
        return self.check_table(file) if file.path.endswith(".parquet") else ""

    def check_table(self, file: ShardFile) -> str:
        """Check a whole Parquet file's rows and schema."""
        with self.store.open(file.path) as opened:
            parquet = pq.ParquetFile(opened, pre_buffer=False)
            rows, schema = parquet.metadata.num_rows, parquet.schema_arrow
        if rows != file.rows:
            return f"has {rows:,} rows, its marker says {file.rows:,}"
        if not SHARD.fullmatch(PurePosixPath(file.path).name):
            return ""
        seen = self.schemas.setdefault(str(PurePosixPath(file.path).parent), Counter())
        seen[schema] += 1
        if not schema.equals(seen.most_common(1)[0][0], check_metadata=True):
            return "its schema is not that of the other shards"
        return ""

    def check_ids(self, marker: Marker, wanted: frozenset[int]) -> str:
        """Check that a unit's rows are the unit's, each once."""
        column = "channel" if marker.kind == "channels" else "image_id"
        for paths in files_by_ids(marker):
            ids = [
                value
                for path in paths
                for value in read_table(self.store, path, [column])[column].to_pylist()
            ]
            if len(ids) != len(set(ids)) and column == "image_id":  # a channel may have variants
                return f"an {column} occurs twice"
            if set(ids) != wanted:
                return f"its {column}s are not those of unit {marker.unit}"
        return ""


def wanted_ids(
    stage: str,
    marker: Marker,
    planned: dict[str, ImageUnit],
    rejects: dict[str, frozenset[int]],
) -> frozenset[int] | None:
    """Return which ids a unit's rows have; None where they do not follow from its name."""
    if marker.kind == "channels":
        return frozenset(channels_named(marker.unit))
    unit = planned.get(marker.unit)
    if marker.kind != "images" or unit is None:
        return None
    without = rejects.get(marker.unit, frozenset()) if stage == "extract" else frozenset()
    slots = (slot for slot, _ in unit.images() if slot not in without)
    return frozenset(image_id(unit.number, slot) for slot in slots)


def files_by_ids(marker: Marker) -> list[list[str]]:
    """Group a unit's files so that each group has all its ids; statistics have none."""
    paths = [file.path for file in marker.files]
    if marker.kind == "channels":
        return [[path] for path in paths]
    rows = [path for path in paths if path.startswith(("images/", "rejects/"))]
    features = [[path] for path in paths if path.startswith("features/")]
    return [rows, *features] if rows else features


def digest_of(store: Store, path: str) -> tuple[int, str]:
    """Return a file's size and SHA-256, read block by block."""
    digest, size = hashlib.sha256(), 0
    with store.open(path) as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


def find_leftovers(ledger: Ledger) -> list[str]:
    """List the files of attempts that did not win: hidden parts, and shards of no marker."""
    named = set(ledger.named(ledger.stages))
    return [
        path
        for path in ledger.store.files("")
        if path not in named and is_attempt(PurePosixPath(path))
    ]


def is_attempt(path: PurePosixPath) -> bool:
    """Whether a file is one attempt's: never a marker, nor a file of a night."""
    if path.parts[0] == "placed":
        return False
    if path.name.startswith(LEFTOVER):
        return True
    return path.parts[0] != "passes" and SHARD.fullmatch(path.name) is not None


def note_damage(ledger: Ledger, findings: Sequence[Finding]) -> None:
    """Write which units and merged files are damaged, or remove an earlier note."""
    units = [
        {"marker": path, "sha256": hashlib.sha256(ledger.store.read(path)).hexdigest()}
        for path in sorted(
            {marker_path(each.owner, each.unit) for each in findings if each.owner is not None}
        )
    ]
    files = [each.path for each in findings if each.owner is None and is_merged(each.path)]
    if units or files:
        ledger.store.write(DAMAGE, dump({"units": units, "files": files}))
    elif ledger.store.exists(DAMAGE) and not ledger.doomed:
        ledger.store.delete([DAMAGE])


def is_merged(path: str) -> bool:
    """Whether a file is a layer's merged statistics, which the next run makes again."""
    return path.startswith("channels/") and path.count("/") == 1


def is_json(text: bytes) -> bool:
    """Whether bytes are a JSON object."""
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
