"""Passes and markers: which stage has done which unit, by which recipe.

A pass is one stage with one recipe, ``passes/STAGE-FINGERPRINT8``. Its ``pass.json`` is written
before its first unit. A unit's marker in ``done/`` is written last, names the winning files and
is never replaced: the marker of a slower attempt is refused, so no marker names a swept file.
"""

import json
from dataclasses import asdict, dataclass

from cnnvis_ray.ledger.identity import Recipe, dump, fingerprint
from cnnvis_ray.storage import ShardFile, Store

KINDS = {
    "images": "images",
    "extract": "images",
    "maximize": "channels",
    "explain": "selection",
    "crops": "selection",
}
"""What the units of a stage are: images of the plan, channels of the grid, some images of a unit.
Every other stage makes products: one unit for a layer or for the whole run."""


@dataclass(frozen=True, slots=True)
class Pass:
    """One stage with one recipe over some layers.

    Attributes:
        stage: the stage that does its units.
        recipe: the configuration keys that its rows depend on; another value is refused.
        layers: what it covers; the layers of one pass share a forward and a marker.
        inputs: digest of what it reads; other inputs make it due again.
        subject: the catalogue's name, where a stage keeps several side by side.
    """

    stage: str
    recipe: Recipe
    layers: tuple[str, ...] = ()
    inputs: str = ""
    subject: str = ""

    @property
    def name(self) -> str:
        """The pass's folder: stage and the first eight digits of its fingerprint."""
        return f"{self.stage}-{self.fingerprint[:8]}"

    @property
    def fingerprint(self) -> str:
        """The digest of everything that makes this pass what it is."""
        return fingerprint({**asdict(self), "layers": sorted(self.layers)})

    @property
    def kind(self) -> str:
        """What its units are; see `KINDS`."""
        return KINDS.get(self.stage, "product")

    def covers(self, other: "Pass") -> bool:
        """Whether both describe the same rows: one stage, one subject, a layer in common."""
        same = self.stage == other.stage and self.subject == other.subject
        return same and (not other.layers or bool(set(self.layers) & set(other.layers)))


@dataclass(frozen=True, slots=True)
class Marker:
    """A finished unit.

    Attributes:
        unit: its name.
        files: the winning files.
        rejects: the slots of images that could not be used.
        kind: what the unit is; markers of earlier versions have none and take their pass's.
    """

    unit: str
    files: tuple[ShardFile, ...]
    rejects: tuple[int, ...] = ()
    kind: str = ""


def marker_path(owner: Pass, unit: str) -> str:
    """Name the file of a unit's marker."""
    return f"passes/{owner.name}/done/{unit}.json"


def commit(store: Store, owner: Pass, marker: Marker) -> bool:
    """Write a unit's marker, unless it has one: from now on its files count.

    Returns:
        Whether this attempt is the one that counts.
    """
    fields = {**asdict(marker), "kind": marker.kind or owner.kind}
    return store.create(marker_path(owner, marker.unit), dump(fields))


def parse_pass(text: bytes) -> Pass:
    """Read one pass.json; ValueError where it is damaged."""
    try:
        fields = json.loads(text)
        layers = tuple(fields["layers"])
        return Pass(fields["stage"], fields["recipe"], layers, fields["inputs"], fields["subject"])
    except (KeyError, TypeError) as failure:
        raise ValueError(str(failure)) from None


def parse_marker(text: bytes, owner: Pass) -> Marker:
    """Read one marker; ValueError where it is damaged."""
    try:
        fields = json.loads(text)
        files = tuple(ShardFile(**file) for file in fields["files"])
        kind = fields.get("kind") or owner.kind
        return Marker(fields["unit"], files, tuple(fields["rejects"]), kind)
    except (KeyError, TypeError, AttributeError) as failure:
        raise ValueError(str(failure)) from None
