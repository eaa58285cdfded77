"""Which column of a Parquet file holds images, and which holds their labels.

Images are encoded bytes (JPEG, PNG, ...), in a binary column or in the field ``bytes`` of a struct
(the ``{bytes, path}`` of Hugging Face data sets). Labels are strings or whole numbers; numbers
become the class names that a Hugging Face schema carries for them.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from cnnvis_ray.errors import RefusedError

USUAL = ("image", "img", "picture", "jpg", "png", "bytes")
"""Names that decide between several columns of bytes."""


@dataclass(frozen=True, slots=True)
class ImageColumn:
    """A column of encoded images; ``field`` is where the bytes lie in a struct."""

    name: str
    field: str | None

    @property
    def path(self) -> str:
        """The leaf to read; the struct's other fields are not read."""
        return self.name if self.field is None else f"{self.name}.{self.field}"


def image_column(schema: pa.Schema, wanted: str | None, origin: str) -> ImageColumn:
    """Return the column of images.

    Args:
        schema: of the file.
        wanted: ``images.image_column``, or None for the only one or the one with a usual name.
        origin: the file's name in a refusal.

    Raises:
        RefusedError: there is no such column, it holds no bytes, or the choice is not clear.
    """
    columns = {field.name: column_of(field) for field in schema}
    fitting = {name: column for name, column in columns.items() if column is not None}
    if wanted is not None:
        if wanted not in fitting:
            raise RefusedError(refusal(schema, f"{origin} has no image bytes in {wanted!r}"))
        return fitting[wanted]
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    usual = next((name for name in USUAL if name in fitting), None)
    if usual is None:
        several = f"several columns of bytes in {origin}; set images.image_column"
        raise RefusedError(
            refusal(schema, several if fitting else f"{origin} has no column of image bytes")
        )
    return fitting[usual]


def column_of(field: pa.Field) -> ImageColumn | None:
    """Return how a column holds bytes, or None."""
    if holds_bytes(field.type):
        return ImageColumn(field.name, None)
    if pa.types.is_struct(field.type):
        inner = {child.name: child.type for child in field.type}
        if "bytes" in inner and holds_bytes(inner["bytes"]):
            return ImageColumn(field.name, "bytes")
    return None


def holds_bytes(kind: pa.DataType) -> bool:
    """Whether a type is bytes of any length."""
    if pa.types.is_dictionary(kind):
        return holds_bytes(kind.value_type)
    return bool(
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    )


def refusal(schema: pa.Schema, problem: str) -> str:
    """Return a message with the columns of a file and what is allowed."""
    listed = ", ".join(f"{field.name} ({str(field.type)[:60]})" for field in schema)
    return f"{problem}; its columns: {listed}; allowed are binary, or a struct with binary bytes"


def label_names(schema: pa.Schema, column: str) -> Sequence[str] | None:
    """Return the class names that a Hugging Face schema carries for a column of numbers."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None


def is_label(kind: pa.DataType) -> bool:
    """Whether a column's values can be labels."""
    if pa.types.is_dictionary(kind):
        return is_label(kind.value_type)
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_integer(kind)
    )


def name_label(value: int | str | None, names: Sequence[str] | None) -> str | None:
    """Return the name of a label; numbers outside the names, like Hugging Face's -1, have none."""
    if value is None or names is None or isinstance(value, str):
        return None if value is None else str(value)
    return names[value] if 0 <= value < len(names) else None
