"""Work units: the smallest retryable pieces, and the ids of the images in them.

``image_id = unit * 2**24 + slot`` is never given twice. An image unit that lost or changed an
image is done again at the next revision; a removed image leaves its slot empty.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from cnnvis_ray.images import Entry

SLOTS = 2**24
CHANNELS_PER_UNIT = 16  # the fixed grid: a unit is 16 neighbouring channels of one layer


@dataclass(frozen=True, slots=True)
class PlannedEntry:
    """One listed entry at its place: the slot of its (first) image in the unit."""

    slot: int
    entry: Entry

    def images(self) -> Iterator[tuple[int, str]]:
        """Return slot and key of each image."""
        return enumerate(self.entry.image_keys(), self.slot)


@dataclass(frozen=True, slots=True)
class ImageUnit:
    """Some images at one revision."""

    number: int
    revision: int
    planned: tuple[PlannedEntry, ...]

    @property
    def name(self) -> str:
        """The unit's name in markers and shards: ``000017.r0``."""
        return f"{self.number:06d}.r{self.revision}"

    def images(self) -> Iterator[tuple[int, str]]:
        """Return slot and key of each image, by slot."""
        for planned in self.planned:
            yield from planned.images()

    def __len__(self) -> int:
        return sum(planned.entry.num_images for planned in self.planned)


@dataclass(frozen=True, slots=True)
class ChannelUnit:
    """Some channels of one layer that share a cell of the fixed grid of channels."""

    number: int
    channels: tuple[int, ...]

    @property
    def name(self) -> str:
        """The unit's name: grid cell, and which of its channels as a mask: ``000002.c00ff``."""
        mask = sum(1 << (channel % CHANNELS_PER_UNIT) for channel in self.channels)
        return f"{self.number:06d}.c{mask:04x}"


def image_id(unit: int, slot: int) -> int:
    """Return the id of the image in one slot."""
    return unit * SLOTS + slot


def channels_named(unit_name: str) -> set[int]:
    """Read back the channels from a channel unit's name."""
    cell, _, mask = unit_name.partition(".c")
    bits = int(mask, 16)
    first = int(cell) * CHANNELS_PER_UNIT
    return {first + bit for bit in range(CHANNELS_PER_UNIT) if bits >> bit & 1}


def channel_units(channels: set[int], done: set[str]) -> list[ChannelUnit]:
    """Cut the channels that no finished unit holds along the fixed grid."""
    missing = channels.difference(*(channels_named(name) for name in done))
    cells: dict[int, list[int]] = {}
    for channel in sorted(missing):
        cells.setdefault(channel // CHANNELS_PER_UNIT, []).append(channel)
    return [ChannelUnit(cell, tuple(members)) for cell, members in sorted(cells.items())]
