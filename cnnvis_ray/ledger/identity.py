"""What a run is and what its results depend on: identity, recipes and their fingerprints.

Fingerprints form a chain. The root covers the source, the network, its weights and preprocess; a
run directory belongs to one root for ever. Every recipe carries the root or what it needs of it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping

from cnnvis_ray.config.sections import Value
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.storage import Store

FORMAT_VERSION = 1
RUN = "run.json"

Recipe = Mapping[str, Value]


def fingerprint(recipe: Recipe) -> str:
    """Return the SHA-256 of a recipe in hexadecimal; the order of its keys does not matter."""
    return hashlib.sha256(canonical(recipe).encode()).hexdigest()


def canonical(value: Value) -> str:
    """Write a value as JSON in exactly one way."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def differences(old: Recipe, new: Recipe) -> list[str]:
    """List the keys that differ between two recipes: ``extract.pooling was mean, is max``."""

    def text(value: Value) -> str:
        return value if isinstance(value, str) else canonical(value)

    changed = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    return [f"{key} was {text(old.get(key))}, is {text(new.get(key))}" for key in changed]


def dump(fields: object) -> bytes:
    """Write a record as JSON for people and programs."""
    return (json.dumps(fields, indent=1, ensure_ascii=False) + "\n").encode()


def read_identity(store: Store) -> Recipe | None:
    """Read the identity of a run.

    Returns:
        None where there is no run.json.

    Raises:
        RefusedError: run.json is damaged, or of another format.
    """
    try:
        fields = json.loads(store.read(RUN))
        version, identity = fields["format_version"], fields["identity"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise RefusedError(
            f"{store.root}/{RUN} is damaged; run the stage again with --config FILE, which "
            "writes it again if source, network and weights are the run's"
        ) from None
    if version != FORMAT_VERSION:
        raise RefusedError(
            f"{store.root!r} has format {version}, this version writes {FORMAT_VERSION}: use "
            "another run_dir"
        )
    return dict(identity)


def check_identity(store: Store, identity: Recipe, roots: Iterable[str]) -> None:
    """Refuse a run directory that belongs to a run of another identity.

    Args:
        store: the run.
        identity: source, network, weights and preprocess of this invocation.
        roots: fingerprints of the identity that finished passes carry; they decide where
            run.json is missing or damaged.

    Raises:
        RefusedError: names each key that differs.
    """
    known = None
    try:
        known = read_identity(store)
    except RefusedError:
        if not set(roots):
            raise
    if known is None:
        if set(roots) - {fingerprint(identity)}:
            raise RefusedError(
                f"{store.root!r} holds work of another run, and its {RUN} is missing or damaged: "
                f"restore {RUN}, or use another run_dir"
            )
        return
    changed = differences(known, json.loads(json.dumps(identity)))
    if changed:
        raise RefusedError(
            f"{store.root!r} belongs to another run: {'; '.join(changed)}; use another run_dir"
        )


def write_identity(store: Store, identity: Recipe, versions: Mapping[str, str]) -> None:
    """Write run.json where there is none that can be read."""
    try:
        if read_identity(store) is not None:
            return
    except RefusedError:
        pass
    fields = {"format_version": FORMAT_VERSION, "identity": identity, "versions": versions}
    store.write(RUN, dump(fields))
