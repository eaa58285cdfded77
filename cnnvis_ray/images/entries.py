"""What a source holds, in order, and how it is cut into work units.

An entry is one image, or a range of rows that counts as many images and costs the memory of one:
an archive of 100 million rows is a handful of entries. A row's key is its number in decimal.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """One image, or a contiguous range of rows.

    Attributes:
        key: the image's stable name in its source; for a range, what stands before a row's number
            in the keys of its images (empty where the source is one archive).
        version: changes when the content does: size and time of the file that holds it.
        rows: first row and the one after the last, or None for one image.
    """

    key: str
    version: str
    rows: tuple[int, int] | None = None

    @property
    def num_images(self) -> int:
        """The number of images it stands for."""
        return 1 if self.rows is None else self.rows[1] - self.rows[0]

    def image_keys(self) -> Iterator[str]:
        """Return the keys of its images in order."""
        if self.rows is None:
            yield self.key
        else:
            yield from (f"{self.key}{row}" for row in range(*self.rows))


@dataclass(frozen=True, slots=True)
class Listing:
    """What a source holds now, in order.

    Attributes:
        chunk_rows: rows that are stored, and best read, together; 1 where it does not matter.
            Where archives differ, by the key of their entries.
    """

    entries: tuple[Entry, ...]
    chunk_rows: int | Mapping[str, int] = 1

    @property
    def num_images(self) -> int:
        """The number of images that the entries stand for."""
        return sum(entry.num_images for entry in self.entries)

    def keys(self) -> Iterator[str]:
        """Return the keys of all images in order."""
        return (key for entry in self.entries for key in entry.image_keys())


def cut(
    entries: Iterable[Entry], unit_size: int, chunk_rows: int | Mapping[str, int] = 1
) -> list[list[Entry]]:
    """Cut a listing into work units of at most ``unit_size`` images, order kept.

    Single images fill units one after another. A range of rows is cut along the file's chunks, so
    that two workers never decompress the same chunk for two units where this can be avoided:
    several whole chunks make a unit, or a chunk longer than a unit is cut into equal parts.
    Every piece of a range is a unit of its own.
    """
    units: list[list[Entry]] = []
    singles: list[Entry] = []
    for entry in entries:
        if singles and (entry.rows is not None or len(singles) == unit_size):
            units.append(singles)
            singles = []
        if entry.rows is None:
            singles.append(entry)
        else:
            chunk = chunk_rows if isinstance(chunk_rows, int) else chunk_rows.get(entry.key, 1)
            units.extend([piece] for piece in pieces(entry, unit_size, chunk))
    return [*units, singles] if singles else units


def pieces(entry: Entry, unit_size: int, chunk_rows: int) -> Iterator[Entry]:
    """Cut one range of rows into ranges of at most ``unit_size``, along the chunks."""
    assert entry.rows is not None
    start, stop = entry.rows
    while start < stop:
        end = min(stop, piece_end(start, unit_size, chunk_rows))
        yield Entry(entry.key, entry.version, (start, end))
        start = end


def piece_end(start: int, unit_size: int, chunk_rows: int) -> int:
    """Return the end of a piece that starts at a row.

    Boundaries depend on the row number alone, so rows that are added later do not move them.
    """
    last_chunk_end = (start + unit_size) // chunk_rows * chunk_rows
    if chunk_rows <= unit_size:
        return last_chunk_end
    num_parts = -(-chunk_rows // unit_size)
    part = -(-chunk_rows // num_parts)
    chunk_start = start // chunk_rows * chunk_rows
    part_end = chunk_start + ((start - chunk_start) // part + 1) * part
    return min(part_end, chunk_start + chunk_rows)


def images_of(entries: Sequence[Entry]) -> Iterator[tuple[int, str, str]]:
    """Return slot, key and version of each image of a work unit, slots from 0."""
    named = ((key, entry.version) for entry in entries for key in entry.image_keys())
    for slot, (key, version) in enumerate(named):
        yield slot, key, version
