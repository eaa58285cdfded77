"""The sections of a configuration: frozen records in which every key has a meaning and a default.

The key names are a promise to users, recipes and scheduled runs. A value ``auto`` is resolved on
the driver and stored resolved. ``layers: null`` in a section means the run's layers.
"""

from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator

Auto = Literal["auto"]
PoolingName = Annotated[str, Field(pattern=r"^(flatten|mean|max|grid:[1-9]\d*|sketch:[1-9]\d*)$")]
Rgb = tuple[int, int, int]
DEADLINE = (
    r"^(([01]?\d|2[0-3]):[0-5]\d|"
    r"\d{4}-\d\d-\d\d[T ][0-2]\d:[0-5]\d(:[0-5]\d)?(Z|[+-]\d\d:\d\d)?)$"
)


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Images(Section):
    """Where images come from and how they are cut into work units."""

    source: str | Annotated[list[str], Field(min_length=1)] = "digits"
    hdf5_dataset: str = "imgBrick"
    image_column: str | None = None
    indices: list[int] | str | None = None
    limit: PositiveInt | None = None
    labels: str | None = "folder"
    label_names: dict[str, str] | str | None = None
    unit_size: PositiveInt = Field(default=256, le=2**24)
    max_pixels: PositiveInt = 100_000_000
    max_reject_fraction: float = Field(default=0.05, ge=0, le=1)
    thumbnail: PositiveInt = Field(default=128, ge=8, le=1024)


class PreprocessValues(Section):
    """What a network needs: the shorter side to ``resize`` pixels, a central square ``crop``."""

    resize: PositiveInt
    crop: PositiveInt
    channels: Literal[1, 3] = 3
    mean: list[float] = [0.0, 0.0, 0.0]
    std: list[float] = [1.0, 1.0, 1.0]
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"


class Network(Section):
    """The network, its weights and what it needs of an image."""

    name: str = "vgg16"
    weights: str = "DEFAULT"
    preprocess: Auto | PreprocessValues = "auto"


class Extract(Section):
    """How activations become features."""

    pooling: PoolingName = "mean"
    dtype: Literal["float16", "float32"] = "float16"
    precision: Literal["float32", "bfloat16"] = "float32"
    batch_size: PositiveInt = 32
    predictions: Literal["auto"] | bool = "auto"
    exemplars: PositiveInt = 9


class Reduce(Section):
    """Features to positions: PCA, then t-SNE.

    ``theta`` is Barnes-Hut's angle (the seed used 0.2); ``null`` leaves openTSNE's choice:
    Barnes-Hut below 10,000 points, interpolation (FFT) above.
    """

    layers: list[str] | None = None
    pca_components: PositiveInt | None = 50
    whiten: bool = False
    metric: Literal["euclidean", "cosine", "manhattan"] = "euclidean"
    perplexity: float = Field(default=30, gt=0)
    early_exaggeration: float = Field(default=12, gt=0)
    learning_rate: Auto | float = "auto"
    theta: float | None = Field(default=None, gt=0, le=1)
    iterations: PositiveInt = 750
    landmarks: Auto | PositiveInt = "auto"
    min_knn_preservation: float | None = Field(default=None, ge=0, le=1)


class Mosaic(Section):
    """Pictures drawn from an embedding."""

    layers: list[str] | None = None
    layouts: list[str] = ["scatter", "grid"]
    width: PositiveInt = Field(default=4000, le=30_000)
    height: PositiveInt = Field(default=3000, le=30_000)
    tile: PositiveInt = Field(default=100, ge=4, le=1024)
    background: str = "white"
    frame: Literal["label", "none"] = "label"
    colour: Literal["label", "none"] | dict[str, str] = "label"
    max_images: PositiveInt | None = None
    pyramid: bool | Auto = "auto"


class Cluster(Section):
    """What the job takes of a cluster.

    ``unit_timeout_seconds: auto`` is ten times the slowest unit so far. ``deadline`` is a time of
    day (``06:30``, the next one) or a date and time (``2026-11-23T06:30``), local if without zone.
    """

    address: str | None = None
    workers: Auto | PositiveInt = "auto"
    gpus_per_worker: Auto | Annotated[float, Field(ge=0)] = "auto"
    cpus_per_worker: Auto | PositiveInt = "auto"
    in_flight: PositiveInt = 2
    max_attempts: PositiveInt = 3
    unit_timeout_seconds: Auto | Annotated[float, Field(gt=0)] = "auto"
    startup_timeout_seconds: float = Field(default=600, gt=0)
    deadline: Annotated[str, Field(pattern=DEADLINE)] | None = None

    @field_validator("deadline", mode="before")
    @classmethod
    def as_text(cls, given: object) -> object:
        """Take a date that YAML read as one, and 6:30, which YAML reads as 390."""
        if isinstance(given, datetime):
            return given.isoformat()
        if isinstance(given, int) and not isinstance(given, bool):
            return f"{given // 60:02d}:{given % 60:02d}"
        return given

    def seconds_left(self, now: datetime) -> float | None:
        """Count the seconds to the deadline; none without one.

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
