"""The ledger: the record of a run. What was listed, which passes there are, and what is due."""

from cnnvis_ray.config.sections import Value
from cnnvis_ray.ledger.identity import (
    Recipe,
    check_identity,
    differences,
    dump,
    fingerprint,
    read_identity,
    write_identity,
)
from cnnvis_ray.ledger.lease import Holder, hold, read_holder
from cnnvis_ray.ledger.passes import Marker, Pass, commit
from cnnvis_ray.ledger.plan import Changes, Plan, append, extend, grow, read_plan, recut
from cnnvis_ray.ledger.reading import LABELS, Run, by_number, open_run, read_features, read_shape
from cnnvis_ray.ledger.units import (
    SLOTS,
    ChannelUnit,
    ImageUnit,
    channel_units,
    channels_named,
    image_id,
)
from cnnvis_ray.ledger.verification import Finding, Verifier
from cnnvis_ray.ledger.view import Claim, Ledger, digest_files

__all__ = [
    "LABELS",
    "SLOTS",
    "Changes",
    "ChannelUnit",
    "Claim",
    "Finding",
    "Holder",
    "ImageUnit",
    "Ledger",
    "Marker",
    "Pass",
    "Plan",
    "Recipe",
    "Run",
    "Value",
    "Verifier",
    "append",
    "by_number",
    "channel_units",
    "channels_named",
    "check_identity",
    "commit",
    "differences",
    "digest_files",
    "dump",
    "extend",
    "fingerprint",
    "grow",
    "hold",
    "image_id",
    "open_run",
    "read_features",
    "read_holder",
    "read_identity",
    "read_plan",
    "read_shape",
    "recut",
    "write_identity",
]
