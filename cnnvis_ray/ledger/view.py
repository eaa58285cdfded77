"""One view of the ledger per invocation: passes and markers, read once and in parallel.

One listing of ``passes/`` finds everything; each pass.json and each marker is read at most once.
Deciding what is due only reads. What a decision changes is written by `open`, `make` and
`retire`, which a stage calls after every stage of the invocation has decided.
"""

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from dataclasses import replace as dataclass_replace

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.ledger.identity import differences, dump
from cnnvis_ray.ledger.passes import Marker, Pass, commit, marker_path, parse_marker, parse_pass
from cnnvis_ray.storage import ShardFile, Store
from cnnvis_ray.storage.stores import LEFTOVER

log = logging.getLogger(__name__)

DAMAGE = "damage.json"
PRODUCT = "000000.r0"  # the one unit of a product


@dataclass(frozen=True, slots=True)
class Claim:
    """A decision about one wanted pass, not yet written.

    Attributes:
        kept: passes that cover wanted layers and go on.
        dropped: passes to be done again.
        fresh: the pass to be opened for layers that no kept pass covers.
        wanted: what was claimed.
    """

    wanted: Pass
    kept: tuple[Pass, ...]
    dropped: tuple[Pass, ...]
    fresh: Pass | None

    @property
    def passes(self) -> tuple[Pass, ...]:
        """The passes that cover the wanted layers once the claim is opened."""
        return (*self.kept, self.fresh) if self.fresh else self.kept


class Ledger:
    """Passes, markers and damage of one run, as one invocation sees them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.listed: dict[str, set[str]] = defaultdict(set)  # unit names by pass folder
        self.by_name: dict[str, Pass] = {}
        self.read: dict[str, dict[str, Marker]] = {}
        self.damaged: list[str] = []  # files of the ledger that cannot be read
        self.doomed: set[str] = set()  # markers that are due again: damaged, or noted by verify
        self.parts: list[str] = []  # hidden files of attempts that were cut off
        self.list_passes()

    def list_passes(self) -> None:
        """List passes/ once and read every pass.json."""
        owners = []
        for path in self.store.files("passes"):
            folder, _, name = path.removeprefix("passes/").partition("/")
            if name.rpartition("/")[2].startswith(LEFTOVER):
                self.parts.append(path)
            elif name == "pass.json":
                owners.append(path)
            elif name.startswith("done/") and name.endswith(".json"):
                self.listed[folder].add(name[len("done/") : -len(".json")])
        for path, text in self.store.read_many(owners).items():
            try:
                self.by_name[path.split("/")[1]] = parse_pass(text)
            except ValueError:
                self.damaged.append(path)
        self.doomed |= set(self.damage_note()["units"])

    def damage_note(self) -> dict[str, list[str]]:
        """Read what `verify` noted: markers whose units are due again, and merged files.

        A marker that changed since is left: its unit was done again.
        """
        found: dict[str, list[str]] = {"units": [], "files": []}
        if not self.store.exists(DAMAGE):
            return found
        try:
            note = json.loads(self.store.read(DAMAGE))
            noted = {unit["marker"]: unit["sha256"] for unit in note["units"]}
            found["files"] = [str(path) for path in note["files"]]
        except (ValueError, KeyError, TypeError):
            self.damaged.append(DAMAGE)
            return found
        present = [path for path in noted if self.store.exists(path)]
        for path, text in self.store.read_many(present).items():
            if hashlib.sha256(text).hexdigest() == noted[path]:
                found["units"].append(path)
        return found

    def passes(self, stage: str) -> list[Pass]:
        """Return the passes of a stage."""
        return [owner for owner in self.by_name.values() if owner.stage == stage]

    @property
    def stages(self) -> list[str]:
        """The stages that have passes, the images first."""
        names = {owner.stage for owner in self.by_name.values()}
        return sorted(names, key=lambda name: (name != "images", name))

    def markers(self, owner: Pass) -> dict[str, Marker]:
        """Return the markers of a pass by unit name, in order; damaged ones are due again."""
        if owner.name not in self.read:
            self.read[owner.name] = {}
            self.read_markers(owner, self.listed[owner.name])
        return self.read[owner.name]

    def read_markers(self, owner: Pass, units: Iterable[str]) -> None:
        """Read some markers of a pass into the view."""
        paths = {marker_path(owner, unit): unit for unit in sorted(units)}
        known = self.read[owner.name]
        texts = self.store.read_many([path for path in paths if path not in self.doomed])
        for path, text in texts.items():
            try:
                known[paths[path]] = parse_marker(text, owner)
            except ValueError:
                log.warning("%s/%s is damaged: its unit is due again", self.store.root, path)
                self.doomed.add(path)
        self.read[owner.name] = dict(sorted(known.items()))

    def done(self, owner: Pass) -> set[str]:
        """Return the names of a pass's finished units."""
        return set(self.markers(owner))

    def refresh(self, owners: Iterable[Pass]) -> None:
        """Read the markers that workers wrote since the view was made."""
        for owner in owners:
            names = self.store.names(f"passes/{owner.name}/done")
            present = {name[:-5] for name in names if name.endswith(".json")}
            new = present - self.done(owner)
            self.listed[owner.name] = present
            self.read_markers(owner, new)

    def files(self, stage: str, folder: str) -> list[ShardFile]:
        """List the winning files of a stage in one folder, by unit."""
        found: dict[str, tuple[str, ShardFile]] = {}
        for owner in self.passes(stage):
            if not owner.layers or self.may_hold(owner, folder):
                for marker in self.markers(owner).values():
                    for file in marker.files:
                        if file.path.startswith(f"{folder}/"):
                            found[file.path] = (marker.unit, file)
        return [file for _, file in sorted(found.values(), key=lambda pair: pair[0])]

    def files_of(self, owner: Pass, folder: str) -> list[ShardFile]:
        """List the winning files of one pass in one folder, by unit."""
        return [
            file
            for marker in self.markers(owner).values()
            for file in marker.files
            if file.path.startswith(f"{folder}/")
        ]

    @staticmethod
    def may_hold(owner: Pass, folder: str) -> bool:
        """Whether a pass of layers can have files in a folder: one of a layer, or of several."""
        last = folder.rpartition("/")[2]
        return "/" not in folder or last in owner.layers or owner.kind != "images"

    def claim(self, wanted: Pass, replace: bool = False, remake: bool = False) -> Claim:
        """Decide which passes cover the wanted layers by the wanted recipe. Writes nothing.

        Layers that earlier passes cover stay where they are; the others open one pass of their
        own, so an added layer costs itself. Passes with other inputs are done again.

        Args:
            wanted: recipe and layers.
            replace: do everything again, whatever its recipe was.
            remake: do again what has another recipe, without being asked.

        Raises:
            RefusedError: a layer was done by another recipe; names every key that differs.
        """
        kept, dropped = [], []
        for old in self.passes(wanted.stage):
            if not old.covers(wanted):
                continue
            if replace or old.inputs != wanted.inputs or (remake and old.recipe != wanted.recipe):
                if not replace and not remake and old.recipe != wanted.recipe:
                    raise RefusedError(self.refusal(old, wanted))
                dropped.append(old)
            elif old.recipe != wanted.recipe:
                raise RefusedError(self.refusal(old, wanted))
            else:
                kept.append(old)
        covered = {layer for old in kept for layer in old.layers}
        missing = tuple(layer for layer in wanted.layers if layer not in covered)
        needed = missing or not (wanted.layers or kept)
        fresh = dataclass_replace(wanted, layers=missing) if needed else None
        return Claim(wanted, tuple(kept), tuple(dropped), fresh)

    def finished(self, claim: Claim) -> dict[str, set[str]]:
        """Return, by pass name, the units that are done once a claim is opened."""
        found = {owner.name: self.done(owner) for owner in claim.kept}
        if claim.fresh is not None:
            whole = f"passes/{claim.fresh.name}/pass.json" in self.damaged
            found[claim.fresh.name] = self.done(claim.fresh) if whole else set()
        return found

    def refusal(self, old: Pass, wanted: Pass) -> str:
        """Write which keys of a recipe changed and what doing it again would cost."""
        changed = "; ".join(differences(old.recipe, wanted.recipe))
        layers = f" of {', '.join(old.layers)}" if old.layers else ""
        return (
            f"{wanted.stage}: {changed}; {len(self.listed[old.name])} finished units{layers} "
            f"would be done again, with all that depends on them: --replace {wanted.stage}, or "
            "use another run_dir"
        )

    def open(self, claim: Claim) -> tuple[Pass, ...]:
        """Write a claim: drop what is done again, open the fresh pass.

        A pass that also covers layers that were not claimed keeps them.
        """
        for old in claim.dropped:
            rest = tuple(layer for layer in old.layers if layer not in claim.wanted.layers)
            if rest:
                self.split(old, rest)
            self.drop(old)
        if claim.fresh is not None:
            self.write_pass(claim.fresh)
        return claim.passes

    def drop(self, old: Pass) -> None:
        """Forget a pass: pass.json first, since its markers count for nothing without it."""
        self.store.delete([f"passes/{old.name}/pass.json"])
        self.store.delete(marker_path(old, unit) for unit in self.listed[old.name])
        self.by_name.pop(old.name, None)
        self.listed.pop(old.name, None)
        self.read.pop(old.name, None)

    def drop_markers(self, owner: Pass) -> None:
        """Make every unit of a pass due again."""
        self.store.delete(marker_path(owner, unit) for unit in self.listed[owner.name])
        self.listed[owner.name] = set()
        self.read.pop(owner.name, None)

    def split(self, old: Pass, layers: tuple[str, ...]) -> None:
        """Move some layers of a pass to a pass of their own, with the files they have."""
        own = dataclass_replace(old, layers=layers)
        kinds = ("features", "channels")
        folders = tuple(f"{kind}/{layer}/" for kind in kinds for layer in layers)
        markers = list(self.markers(old).values())
        self.write_pass(own)
        for marker in markers:
            files = tuple(file for file in marker.files if file.path.startswith(folders))
            self.commit(own, dataclass_replace(marker, files=files))

    def write_pass(self, owner: Pass) -> None:
        """Write pass.json. Markers that lie there without one are of work that was dropped."""
        if f"passes/{owner.name}/pass.json" not in self.damaged:
            self.store.delete(marker_path(owner, unit) for unit in self.listed[owner.name])
            self.listed[owner.name] = set()
        self.store.write(f"passes/{owner.name}/pass.json", dump(asdict(owner)))
        self.by_name[owner.name] = owner
        self.read.pop(owner.name, None)

    def commit(self, owner: Pass, marker: Marker) -> None:
        """Write a marker from the driver, in place of a damaged one, and keep it in the view."""
        marker = dataclass_replace(marker, kind=marker.kind or owner.kind)
        path = marker_path(owner, marker.unit)
        if path in self.doomed:
            self.store.delete([path])
            self.doomed.discard(path)
        commit(self.store, owner, marker)
        self.markers(owner)[marker.unit] = marker
        self.listed[owner.name].add(marker.unit)

    def is_made(self, wanted: Pass) -> bool:
        """Whether a product exists, made from these inputs by this recipe."""
        return any(
            old.recipe == wanted.recipe
            and old.inputs == wanted.inputs
            and PRODUCT in self.done(old)
            for old in self.passes(wanted.stage)
            if old.covers(wanted)
        )

    def make(
        self,
        wanted: Pass,
        build: Callable[[], Iterable[ShardFile]],
        again: bool = False,
    ) -> tuple[Marker, bool]:
        """Make a product of one unit, unless it is there from the same inputs and recipe.

        Args:
            wanted: the product.
            build: writes its files.
            again: make it in any case.

        Returns:
            Its marker, and whether it was made now.
        """
        (owner,) = self.open(self.claim(wanted, replace=again, remake=True))
        found = self.markers(owner).get(PRODUCT)
        if found is not None:
            return found, False
        marker = Marker(PRODUCT, tuple(build()))
        self.commit(owner, marker)
        return marker, True

    def retire(self, owner: Pass, live: set[str]) -> set[str]:
        """Delete the markers of units that are no longer live; return the live units done."""
        finished = self.done(owner)
        stale = finished - live
        self.store.delete(marker_path(owner, unit) for unit in stale)
        for unit in stale:
            del self.read[owner.name][unit]
            self.listed[owner.name].discard(unit)
        return finished & live

    def heal(self) -> list[str]:
        """Delete what makes damaged units due; return what that is.

        Merged statistics go with their marker. The note of damage goes last, so that a kill half
        way leaves it for the next run.
        """
        merged = [path for path in self.damage_note()["files"] if self.store.exists(path)]
        layers = {path.removeprefix("channels/").removesuffix(".parquet") for path in merged}
        self.doomed |= {
            marker_path(owner, unit)
            for owner in self.passes("statistics")
            for unit in self.listed[owner.name]
            if layers & set(owner.layers)
        }
        found = [*sorted(self.doomed), *merged]
        self.store.delete(found)
        for path in self.doomed:
            _, folder, _, name = path.split("/")
            self.listed[folder].discard(name.removesuffix(".json"))
            self.read.get(folder, {}).pop(name.removesuffix(".json"), None)
        self.doomed.clear()
        if found or self.store.exists(DAMAGE):
            self.store.delete([DAMAGE])
        return found

    def named(self, stages: Iterable[str]) -> Iterator[str]:
        """Return every path that a marker of some stages names."""
        for stage in stages:
            for owner in self.passes(stage):
                for marker in self.markers(owner).values():
                    yield from (file.path for file in marker.files)

    def sweep(
        self, stages: Sequence[str], folders: Sequence[str], due: Iterable[str] = ()
    ) -> list[str]:
        """Delete the files in some folders that no marker names: attempts that did not win.

        Args:
            stages: every stage that writes into the folders.
            folders: where to look; a plain glob over them is true afterwards.
            due: units still to be done. Their files stay, since a worker of a driver that died
                may still commit them.

        Returns:
            What was deleted.
        """
        named = set(self.named(stages))
        waiting = tuple(f"{unit}." for unit in due)
        left = [
            path
            for folder in folders
            for path in self.store.files(folder)
            if path not in named and not path.rpartition("/")[2].startswith(waiting or ("\0",))
        ]
        self.store.delete([*left, *self.parts])
        self.parts.clear()
        return left


def digest_files(files: Sequence[ShardFile]) -> str:
    """Return a digest of what some shards hold, whichever attempt wrote them."""
    text = "\n".join(f"{file.path.rsplit('.', 2)[0]} {file.sha256}" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()
