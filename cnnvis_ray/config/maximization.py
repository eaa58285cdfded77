"""The section of a configuration that says how pictures are made."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cnnvis_ray.config.sections import SINCE, Section
from cnnvis_ray.config.values import (
    Auto,
    Channels,
    Count,
    Flag,
    Index,
    Name,
    Number,
    Positive,
    Text,
)

Side = Annotated[Count, Field(le=100_000)]
Size = Side | tuple[Side, Side]
Factor = Annotated[Positive, Field(le=10)]


class TransformValues(Section):
    """Ranges of the random transforms, drawn for each image and step."""

    pad: Index = Field(default=0, le=10_000, description="pixels of grey around the picture")
    jitter: tuple[Index, Index] = Field(
        default=(0, 0), description="pixels cropped before and after scaling and rotating"
    )
    scale: tuple[Factor, Factor] = Field(
        default=(1.0, 1.0), description="smallest and largest factor"
    )
    rotate: Index = Field(default=0, le=180, description="degrees to both sides")
    flip: Flag = Field(default=False, description="mirror left and right half of the time")


TransformChoice = Text | TransformValues
ObjectiveChoice = Text | dict[str, Number]
Noise = Positive | tuple[Number, Number]
Beta = Annotated[Number, Field(ge=0, lt=1)]


class Override(Section):
    """What a layer has other than the section says; a key left out stays as in the section."""

    channels: Channels | None = None
    objective: ObjectiveChoice | None = None
    parametrization: Text | None = None
    transforms: TransformChoice | None = None
    size: Size | None = None
    steps: Count | None = None
    learning_rate: Positive | None = None
    batch_size: Count | None = None
    attempts: Count | None = None
    pictures: Count | None = None
    dist: Noise | None = None
    neuron: tuple[Index, Index] | None = None


class Maximize(Section):
    """Activation maximization: which channels, from what start, by which steps."""

    name: Name = Field(
        default="default", description="catalogues of other names are kept side by side"
    )
    layers: list[Text] | None = Field(default=None, description="null: the run's layers; []: none")
    channels: Channels = Field(default="all", description='all, a list, or a range "0:16"')
    objective: ObjectiveChoice = Field(
        default="channel",
        description="channel, neuron, direction, class, ..., or a weighted sum {name: weight}",
    )
    neuron: tuple[Index, Index] | None = Field(
        default=None, description="row and column on the map, for objective neuron"
    )
    directions: Annotated[list[list[Number]], Field(min_length=1)] | None = Field(
        default=None, description="vectors over the channels, for objective direction"
    )
    pictures: Count = Field(
        default=1,
        description="different pictures per channel, made together; a diversity term in the "
        "objective, {channel: 1, diversity: 0.5}, makes 2 or more differ",
    )
    captured: Literal["copy", "in_place"] = Field(
        default="copy",
        description="copy: the layer's own output; in_place: what an in-place function after it "
        "leaves",
    )
    parametrization: Text = Field(
        default="fourier", description="fourier, pixel, normalized or maco"
    )
    dist: Noise | None = Field(
        default=None,
        description="the start's noise: its strength or [lowest, highest]; null: the "
        "parametrization's own",
    )
    transforms: TransformChoice = Field(
        default="standard",
        description="standard, lucid, none, or {pad, jitter, scale, rotate, flip}",
    )
    size: Size = Field(default=128, description="pixels: side, or [height, width]")
    steps: Count = Field(default=128, description="gradient steps per picture")
    learning_rate: Auto | Positive = Field(
        default="auto", description="of Adam; auto: the parametrization's own"
    )
    betas: Auto | tuple[Beta, Beta] = Field(
        default="auto",
        json_schema_extra={SINCE: 2},
        description="memory of Adam's two averages; auto: the parametrization's own",
    )
    redirect_steps: Index = Field(
        default=16, description="first steps, in which gradients pass silent ReLUs"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="auto (bfloat16 on a GPU), float32 or bfloat16"
    )
    batch_size: Count = Field(default=16, description="pictures made together")
    attempts: Count = Field(
        default=3,
        description="starts at most, while a picture is dead, grey or below the best image",
    )
    overrides: dict[str, Override] = Field(
        default_factory=dict,
        description='other values for a layer: {conv1_1: {size: 160, channels: "0:8"}, ...}',
    )

    @model_validator(mode="after")
    def groups_fit(self) -> Self:
        """Refuse a batch that cannot hold all pictures of one channel."""
        given = {"": Override(), **{f"overrides.{name}.": o for name, o in self.overrides.items()}}
        for prefix, override in given.items():
            pictures = override.pictures or self.pictures
            batch_size = override.batch_size or self.batch_size
            if pictures > batch_size:
                raise ValueError(
                    f"{prefix}pictures: {pictures} pictures of one channel share a batch of "
                    f"batch_size {batch_size}; use at most {batch_size}, or raise batch_size"
                )
        return self

    def for_layer(self, layer: str) -> "Maximize":
        """Return the section with a layer's overrides laid over it."""
        override = self.overrides.get(layer)
        changes = override.model_dump(exclude_none=True) if override else {}
        values = self.model_dump() | changes | {"overrides": {}}
        return Maximize.model_validate(values)

    @property
    def height_width(self) -> tuple[int, int]:
        """Height and width of a picture, pixels."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size
