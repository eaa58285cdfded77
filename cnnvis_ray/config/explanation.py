"""The sections of a configuration that say what is explained, and how sheets are drawn."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cnnvis_ray.config.sections import SINCE, Section
from cnnvis_ray.config.values import Auto, Channels, Count, Flag, Index, Rgb, Text


class Explain(Section):
    """Heat maps, image sheets, channel cards and weight sheets."""

    images: Index | Literal["all"] = Field(
        default=16,
        description="images with heat maps, spread evenly over the rows; all, or 0 to switch the "
        "stage off",
    )
    sheets: Index = Field(default=16, description="the first so many of those get a sheet")
    curves: Index = Field(
        default=8, description="the first so many of those get deletion and insertion curves"
    )
    methods: list[Text] = Field(
        default=["occlusion", "saliency", "grad_cam"],
        description="occlusion, saliency, integrated_gradients, grad_cam, guided_backprop, "
        "guided_grad_cam, attention, attention_rollout (of vision transformers)",
    )
    output: Literal["auto", "classes", "mask", "numbers"] = Field(
        default="auto", description="what the network returns: auto, classes, mask or numbers"
    )
    target: Literal["predicted"] | Index = Field(
        default="predicted", description="the class to explain: predicted, or its index"
    )
    patch: Count = Field(
        default=56, le=100_000, description="side of occlusion's square, pixels of the input"
    )
    stride: Auto | Annotated[Count, Field(le=100_000)] = Field(
        default="auto",
        description="pixels between squares; auto: half of patch, so that they overlap (heat "
        "maps that a run has keep their stride)",
    )
    fill: Rgb = Field(default=(250, 128, 128), description="colour of the square, 0 to 255")
    cam_layer: Text | None = Field(
        default=None, description="Grad-CAM's layer; null: the last one with the smallest maps"
    )
    map_size: Count = Field(default=28, le=512, description="side of a stored heat map")
    batch_size: Count = Field(default=16, description="images per forward pass")
    layers: list[Text] | None = Field(
        default=None, description="layers with cards and sheets; null: the run's layers"
    )
    channels: Channels = Field(
        default="0:16", description='channels with a card: all, a list, or a range "0:16"'
    )
    shown: Literal["first", "strongest"] | list[Index] = Field(
        default="strongest", description="channels on an image's sheet: strongest, first or a list"
    )
    num_shown: Count = Field(default=24, le=256, description="so many channels on a sheet")
    kernels: Count = Field(
        default=256,
        json_schema_extra={SINCE: 2},
        description="at most so many kernels on a weight sheet",
    )
    scale: Literal["shared", "own"] = Field(
        default="own", description="grey values of channels and weights: own or shared"
    )
    probe: Flag = Field(
        default=True, description="train a linear probe per layer, where labels exist"
    )

    @model_validator(mode="after")
    def squares_meet(self) -> Self:
        """Refuse occlusion that would leave gaps."""
        if self.stride != "auto" and self.stride > self.patch:
            raise ValueError(
                f"stride: {self.stride} pixels leave gaps between squares of {self.patch}; "
                f"use at most {self.patch}, or a larger patch"
            )
        return self


class Pictures(Section):
    """How sheets and cards are drawn: nothing here changes a number."""

    background: Text = Field(
        default="black",
        json_schema_extra={SINCE: 2},
        description="of sheets and cards: a colour name or #rrggbb; white for a paper",
    )
    print: Literal["png2x", "pdf", "svg"] | None = Field(
        default=None,
        json_schema_extra={SINCE: 2},
        description="png2x: sheets at twice their size; pdf or svg: beside each sheet another "
        "whose text is text; null: neither",
    )
    columns: dict[Text, Count] = Field(
        default_factory=dict,
        json_schema_extra={SINCE: 2},
        description="tiles per row of a kind of sheet, like {pictures: 5, channels: 10}; kinds: "
        "pictures, channels, occluded, classes, examples, weights; left out: chosen to fit",
    )
    captions: Literal["below", "corner"] = Field(
        default="below",
        json_schema_extra={SINCE: 2},
        description="where a picture's channel is written: below, or corner (a rounded label in "
        "the picture's corner)",
    )
    crops: Literal["box", "mask", "none"] = Field(
        default="box",
        json_schema_extra={SINCE: 2},
        description="on a card's crops: box (the neuron's place), mask (dark where the channel is "
        "below half of its maximum) or none",
    )
    heat: Text = Field(
        default="auto",
        json_schema_extra={SINCE: 2},
        description="colours of heat maps, by matplotlib's name, like Reds; auto: viridis, and "
        "RdBu_r where evidence is negative",
    )
    channels: Text = Field(
        default="viridis",
        json_schema_extra={SINCE: 2},
        description="colours of channels on image sheets, by matplotlib's name, like gray",
    )
    first_channel: Literal[0, 1] = Field(
        default=0,
        json_schema_extra={SINCE: 2},
        description="number of a layer's first channel in the titles on image sheets; 1 counts as "
        "people do",
    )
