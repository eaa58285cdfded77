"""The sections of a configuration: frozen records in which every key has a meaning and a default.

The key names are a promise to users, recipes and scheduled runs. A value ``auto`` is resolved on
the driver and stored resolved. ``layers: null`` in a section means the run's layers, ``[]`` none.
Each key's description is its only text: the commented configuration and the reference are made
of it. Names of extension points (poolings, objectives, layouts) are plain text here; the room
that has the dict of them checks the name.

A key that came after the first version states ``since`` (the version of the keys), so that
`recipe_of` leaves it out while it has its default and old fingerprints hold.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from cnnvis_ray.config.values import (
    Auto,
    Count,
    Deadline,
    Flag,
    Number,
    Positive,
    Rows,
    Share,
    Text,
)

SINCE = "since"
Value = None | bool | int | float | str | Sequence["Value"] | Mapping[str, "Value"]
Recipe = dict[str, Value]


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def recipe_of(section: Section, exclude: Collection[str] = ()) -> Recipe:
    """Return a section's values for a fingerprint.

    Args:
        section: with the values of the run.
        exclude: keys on which the result does not depend.

    Returns:
        Values as JSON has them, without keys that came after the first version and hold their
        default: a run made before the key existed keeps its fingerprint.
    """
    values = section.model_dump(mode="json", exclude=set(exclude))
    for key, field in type(section).model_fields.items():
        extra = field.json_schema_extra
        is_new = isinstance(extra, dict) and SINCE in extra
        if is_new and getattr(section, key) == field.get_default(call_default_factory=True):
            values.pop(key, None)
    return values


class Images(Section):
    """Where images come from and how they are cut into work units."""

    source: Text | Annotated[list[Text], Field(min_length=1)] = Field(
        default="digits",
        description="a folder tree, *.h5, *.parquet or *.tar (one, a list or a glob), the same "
        "but *.h5 below s3:// or gs://, or digits (embedded)",
    )
    hdf5_dataset: Text = Field(
        default="imgBrick", description="data set of an HDF5 file: N H W 3 uint8, or N 3 H W"
    )
    image_column: Text | None = Field(
        default=None,
        description="column of Parquet with image bytes or {bytes, path}; null: found by type",
    )
    indices: Rows | None = Field(
        default=None,
        description='rows of an archive: a list, a range "0:2000", or a file with one number per '
        "line; null: all",
    )
    limit: Count | None = Field(default=None, description="use the first so many images")
    labels: Text | None = Field(
        default="folder",
        description="folder (first sub-folder, or what the source carries), parent (the last "
        "folder), null, an HDF5 data set, a Parquet column, or a table of key and label (.csv, "
        ".parquet)",
    )
    label_names: dict[str, str] | Text | None = Field(
        default=None, description="what to call labels: {cane: dog, ...} or a YAML file of it"
    )
    unit_size: Count = Field(
        default=256,
        le=2**24,
        description="images per work unit: what a killed run repeats at most",
    )
    max_pixels: Count = Field(
        default=100_000_000, description="larger images become rejects before they are decoded"
    )
    max_reject_fraction: Share = Field(
        default=0.05,
        description="with more rejects the run ends with exit code 1 and keeps what it has",
    )
    thumbnail: Count = Field(
        default=128, ge=8, le=1024, description="longer side of a thumbnail, pixels"
    )


class PreprocessValues(Section):
    """What a network needs: the shorter side to ``resize`` pixels, a central square ``crop``."""

    resize: Count = Field(le=100_000, description="shorter side of the resized image, pixels")
    crop: Count = Field(le=100_000, description="side of the central square, pixels")
    channels: Literal[1, 3] = Field(default=3, description="3: RGB, 1: grey")
    mean: list[Number] = Field(
        default=[0.0, 0.0, 0.0],
        min_length=1,
        description="subtracted from values in [0, 1]: one number, or one per channel",
    )
    std: list[Positive] = Field(
        default=[1.0, 1.0, 1.0],
        min_length=1,
        description="divides what is left: one number, or one per channel",
    )
    interpolation: Literal["nearest", "bilinear", "bicubic"] = Field(
        default="bilinear", description="of resizing"
    )


class Network(Section):
    """The network, its weights and what it needs of an image."""

    name: Text = Field(
        default="vgg16", description="a torchvision name, timm:NAME, or package.module:factory"
    )
    weights: Text = Field(
        default="DEFAULT",
        description="DEFAULT, a torchvision weights name, a path or URI of .safetensors or .pth, "
        "or random",
    )
    preprocess: Auto | PreprocessValues = Field(
        default="auto",
        description="auto (what the weights state), or {resize: 256, crop: 224, channels: 3, "
        "mean: [...], std: [...], interpolation: bilinear}",
    )


class Extract(Section):
    """How activations become features."""

    pooling: Text = Field(
        default="mean", description="flatten, mean, max, grid:K (K x K cells) or sketch:D"
    )
    dtype: Literal["float16", "float32"] = Field(
        default="float16", description="of stored features: float16 or float32"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="of the forward pass: float32 or bfloat16"
    )
    batch_size: Count = Field(default=32, description="images per forward pass")
    predictions: Auto | Flag = Field(
        default="auto", description="keep the five likeliest classes: auto, true or false"
    )
    exemplars: Count = Field(default=9, description="best images kept per channel")


class Reduce(Section):
    """Features to positions: PCA, then t-SNE."""

    layers: list[Text] | None = Field(default=None, description="null: the run's layers; []: none")
    pca_components: Count | None = Field(
        default=50, description="dimensions that t-SNE sees; null skips PCA"
    )
    whiten: Flag = Field(default=False, description="give every component unit variance")
    metric: Literal["euclidean", "cosine", "manhattan"] = Field(
        default="euclidean", description="distance of features: euclidean, cosine or manhattan"
    )
    perplexity: Positive = Field(default=30, description="of t-SNE: the size of neighbourhoods")
    early_exaggeration: Positive = Field(
        default=12, description="attraction in the first part of t-SNE is so many times larger"
    )
    learning_rate: Auto | Positive = Field(
        default="auto", description="of t-SNE; auto: images / early_exaggeration"
    )
    theta: Annotated[Positive, Field(le=1)] | None = Field(
        default=None,
        description="Barnes-Hut's angle; null: openTSNE's choice, Barnes-Hut below 10,000 images "
        "and interpolation above",
    )
    iterations: Count = Field(default=750, description="of t-SNE, after early exaggeration")
    landmarks: Auto | Count = Field(
        default="auto",
        json_schema_extra={SINCE: 2},
        description="images that t-SNE places first, the others beside their neighbour; auto: "
        "all up to 200,000 images, 25,000 above",
    )
    min_knn_preservation: Share | None = Field(
        default=None,
        json_schema_extra={SINCE: 2},
        description="with a smaller share of neighbours kept by the map, the run ends with exit "
        "code 1; null: no bound",
    )


class Mosaic(Section):
    """Pictures drawn from an embedding."""

    layers: list[Text] | None = Field(default=None, description="null: the run's layers; []: none")
    layouts: list[Text] = Field(
        default=["scatter", "grid"],
        description="scatter (images at their positions), grid (one image per cell)",
    )
    width: Count = Field(default=4000, le=30_000, description="of the canvas, pixels")
    height: Count = Field(default=3000, le=30_000, description="of the canvas, pixels")
    tile: Count = Field(
        default=100, ge=4, le=1024, description="longest side of an image's tile, pixels"
    )
    background: Text = Field(default="white", description="a colour name or #rrggbb")
    frame: Literal["label", "none"] = Field(
        default="label", description="frame of a tile: label (coloured by class) or none"
    )
    pyramid: Auto | Flag = Field(
        default="auto",
        json_schema_extra={SINCE: 2},
        description="write the grid as a Deep Zoom pyramid (LAYER-grid.dzi); auto: instead of one "
        "picture above 100,000 images",
    )
    max_images: Count | None = Field(
        default=None,
        json_schema_extra={SINCE: 2},
        description="draw a sample of so many images, spread over the labels; null: all",
    )
    colour: Literal["label", "none"] | dict[Text, Text] = Field(
        default="label",
        json_schema_extra={SINCE: 2},
        description="what colours mean: label, none, or a mapping of labels to larger classes",
    )


class Report(Section):
    """The explorer: a folder of pages that opens in a browser."""

    max_images: Count | None = Field(
        default=None,
        json_schema_extra={SINCE: 2},
        description="show a sample of so many images, spread over the labels; null: all",
    )
    compare: Text | None = Field(
        default=None,
        json_schema_extra={SINCE: 2},
        description="another run, whose maps are shown beside this run's, of the images that both "
        "have; null: none",
    )


class Place(Section):
    """New images in a frozen map, and what changed."""

    fail_on: Literal["changed", "not judged"] | None = Field(
        default=None,
        json_schema_extra={SINCE: 2},
        description="end with exit code 1 where the verdict is changed, or (not judged) also "
        "where there were too few images for one; null: never",
    )


class Cluster(Section):
    """What the job takes of a cluster."""

    address: Text | None = Field(
        default=None,
        description="of a Ray cluster; null: the submitted job's own, otherwise a local one",
    )
    workers: Auto | Count = Field(default="auto", description="auto: as many as fit")
    gpus_per_worker: Auto | Annotated[Number, Field(ge=0)] = Field(
        default="auto", description="auto: a GPU each where nodes have them; or 0, 0.5, 1"
    )
    cpus_per_worker: Auto | Count = Field(
        default="auto", description="processor cores and threads per worker"
    )
    in_flight: Count = Field(default=2, description="work units that wait at a worker")
    max_attempts: Count = Field(default=3, description="of a work unit before it is set aside")
    unit_timeout_seconds: Auto | Positive = Field(
        default="auto", description="auto: ten times the slowest unit so far"
    )
    startup_timeout_seconds: Positive = Field(
        default=600, description="how long to wait for nodes that an autoscaler starts"
    )
    deadline: Deadline | None = Field(
        default=None,
        description="stop in good order before a time of day (06:30, the next one) or a date and "
        "time (2026-11-23T06:30); local time unless a zone is given",
    )

    def seconds_left(self, now: datetime) -> float | None:
        """Return the seconds to the deadline; None without one.

        Args:
            now: the present, with its zone.
        """
        if self.deadline is None:
            return None
        if len(self.deadline) <= len("06:30"):
            time = datetime.strptime(self.deadline, "%H:%M").time()
            next_one = now.replace(hour=time.hour, minute=time.minute, second=0, microsecond=0)
            return ((next_one - now) % timedelta(days=1)).total_seconds()
        given = datetime.fromisoformat(self.deadline)
        return (given.replace(tzinfo=given.tzinfo or now.tzinfo) - now).total_seconds()
