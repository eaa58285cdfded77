"""Types of configuration values: numbers with bounds, text, ranges, names, points in time.

Each type refuses what YAML or a hand can get wrong: ``true`` is not a number, ``.inf`` is not
finite, ``16:8`` is not a range. `cnnvis_ray.config.faults` puts their bounds into words.
"""

import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

LARGEST = 2**31 - 1  # what counts, sizes and rows may reach: signed 32 bits
RANGE = re.compile(r"\s*([+-]?\d*)\s*:\s*([+-]?\d*)\s*(?::\s*([+-]?\d*)\s*)?")
CLOCK = re.compile(r"([01]?\d|2[0-3]):[0-5]\d")
MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(Z|[+-]\d\d:\d\d)?")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def parse_range(text: str, length: int | None = None) -> range:
    """Return the numbers of a range ``"START:STOP"``, stop excluded.

    Args:
        text: the range; with a ``length``, ends may be left out and a step given: ``"::2"``.
        length: how many rows or channels there are. A stop beyond it is kept, so that the caller
            can name the first number that does not exist.

    Raises:
        ValueError: it is not a range, or an empty one; the text is what to show after the key.
    """
    match = RANGE.fullmatch(text)
    start, stop, step = match.groups() if match else (None, None, None)
    is_open = start == "" or stop == "" or step is not None
    if match is None or (is_open and length is None):
        raise ValueError(f'{text} is not a range; use "0:16", a list, or all')
    first, last = int(start or 0), int(stop) if stop else length
    stride = int(step or 1)
    assert last is not None
    if first < 0 or last < 0 or stride < 1:
        raise ValueError(f"{text}: numbers of a range are not negative, and its step is above 0")
    if last <= first and stop:
        better = f"{last}:{first}" if last < first else f"{first}:{first + 1}"
        raise ValueError(f'{text} is not a range; use "{better}", a list, or all')
    return range(first, last, stride)


def check_name(text: str) -> str:
    """Return a name that is safe as a folder's.

    Raises:
        ValueError: it has other characters than letters, digits, dot, underscore and hyphen.
    """
    if not NAME.fullmatch(text):
        raise ValueError(
            f"{text!r} is not a name; use letters, digits, dots, underscores and hyphens, "
            "with a letter or digit first"
        )
    return text


def check_channels(text: str) -> str:
    """Return ``all`` or a range of channels, checked."""
    if text != "all":
        parse_range(text)
    return text


def check_rows(text: str) -> str:
    """Return a range of rows, checked, or any other text: the name of a file."""
    if RANGE.fullmatch(text):
        parse_range(text, LARGEST)
    return text


def check_deadline(text: str) -> str:
    """Return a time of day, or a date and time that exists."""
    if CLOCK.fullmatch(text):
        return text
    try:
        if not MOMENT.fullmatch(text):
            raise ValueError
        datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is not a time; use a time of day (06:30) or a date and time that exists "
            "(2026-11-23T06:30)"
        ) from None
    return text


def refuse_bool(given: object) -> object:
    """Return what is not true or false; Python takes those for the numbers 1 and 0."""
    if isinstance(given, bool):
        raise PydanticCustomError("bool_as_number", "true and false are not numbers")
    return given


def read_flag(given: object) -> object:
    """Return true or false, also from an environment variable's text."""
    flags = {"true": True, "false": False}
    flag = flags.get(given, given) if isinstance(given, str) else given
    if not isinstance(flag, bool):
        raise PydanticCustomError("not_a_flag", "only true and false are flags")
    return flag


Auto = Literal["auto"]
Count = Annotated[int, BeforeValidator(refuse_bool), Field(ge=1, le=LARGEST)]
Index = Annotated[int, BeforeValidator(refuse_bool), Field(ge=0, le=LARGEST)]
Seed = Annotated[int, BeforeValidator(refuse_bool), Field(ge=0, le=2**32 - 1)]  # NumPy's bound
Number = Annotated[float, BeforeValidator(refuse_bool)]
Positive = Annotated[float, BeforeValidator(refuse_bool), Field(gt=0)]
Share = Annotated[float, BeforeValidator(refuse_bool), Field(ge=0, le=1)]
Flag = Annotated[bool, BeforeValidator(read_flag)]
Text = Annotated[str, Field(min_length=1)]
Name = Annotated[str, AfterValidator(check_name)]
Deadline = Annotated[str, AfterValidator(check_deadline)]
Channels = (
    Annotated[str, AfterValidator(check_channels)] | Annotated[list[Index], Field(min_length=1)]
)
Rows = Annotated[list[Index], Field(min_length=1)] | Annotated[str, AfterValidator(check_rows)]
Colour = Annotated[int, BeforeValidator(refuse_bool), Field(ge=0, le=255)]
Rgb = tuple[Colour, Colour, Colour]
