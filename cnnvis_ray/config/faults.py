"""Faults of a configuration in words: the key, what was given, what is allowed.

pydantic reports a fault per branch of a union, with names of its own between the keys and the
pattern or class that did not match. Here a key has one line, and what is allowed is read off the
types of the sections: `describe_type` puts a type into words, also for the reference of keys.
"""

import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from cnnvis_ray.config.sections import Section
from cnnvis_ray.config.values import check_channels, check_deadline, check_name, check_rows
from cnnvis_ray.config.yaml_text import write_yaml
from cnnvis_ray.errors import did_you_mean

LONGEST = 60  # characters of a given value that are shown
WORDS: Mapping[object, str] = {
    check_channels: 'all or a range "0:16"',
    check_rows: 'a range "0:2000" or the name of a file',
    check_deadline: "a time of day (06:30) or a date and time (2026-11-23T06:30)",
    check_name: "a name of letters, digits, dots, underscores and hyphens",
}


def describe_faults(invalid: ValidationError, model: type[Section]) -> dict[str, str]:
    """Return one line per key that is wrong, by the key.

    Args:
        invalid: what pydantic found.
        model: the record that was validated.
    """
    faults: dict[str, tuple[int, str]] = {}
    for error in invalid.errors():
        path, annotation = follow(error["loc"], model)
        rank, line = describe(error, path, annotation)
        key = line if error["type"] == "extra_forbidden" else ".".join(path)
        if key not in faults or rank > faults[key][0]:
            faults[key] = (rank, line)
    return {
        key: line
        for key, (_, line) in faults.items()
        if not any(other.startswith(f"{key}.") for other in faults if other != key)
    }


def follow(location: Sequence[int | str], model: type[Section]) -> tuple[list[str], object]:
    """Return the keys of an error's place, without pydantic's names of branches, and its type."""
    path: list[str] = []
    annotation: object = model
    parts = list(location)
    while parts:
        choices = branches(annotation)
        if len(choices) > 1:
            del parts[0]  # the name of a branch
            if not parts:
                break
        part = parts[0]
        inner = next((i for c in choices if (i := step_into(c, part)) is not None), None)
        if inner is None:
            if isinstance(part, str) and any(is_section(choice) for choice in choices):
                path.append(part)  # an unknown key
                annotation = next(choice for choice in choices if is_section(choice))
            break
        path.append(str(part))
        annotation = inner
        del parts[0]
    return path, annotation


def branches(annotation: object) -> list[object]:
    """Return the members of a union but null; another type is its own only member."""
    bare, metadata = unwrap(annotation)
    if get_origin(bare) not in (Union, types.UnionType):
        return [annotation]
    members = [member for member in get_args(bare) if member is not type(None)]
    return [Annotated[member, *metadata] if metadata else member for member in members]


def unwrap(annotation: object) -> tuple[object, list[object]]:
    """Return a type without what annotates it, and the annotations, fields taken apart."""
    metadata: list[object] = []
    while True:
        if isinstance(annotation, FieldInfo):
            metadata.extend(annotation.metadata)
            annotation = annotation.annotation
        elif get_origin(annotation) is Annotated:
            annotation, *notes = get_args(annotation)
            for note in notes:
                metadata.extend(note.metadata if isinstance(note, FieldInfo) else [note])
        else:
            return annotation, metadata


def is_section(annotation: object) -> bool:
    """Return whether a type is a record of keys."""
    bare = unwrap(annotation)[0]
    return isinstance(bare, type) and issubclass(bare, Section)


def step_into(annotation: object, part: int | str) -> object | None:
    """Return the type below a key or an index of a list; None where there is none."""
    bare, _ = unwrap(annotation)
    arguments = get_args(bare)
    if isinstance(bare, type) and issubclass(bare, Section):
        return bare.model_fields.get(str(part))
    inner: object = None
    if get_origin(bare) is dict and isinstance(part, str):
        inner = arguments[1]
    if get_origin(bare) is list and isinstance(part, int):
        inner = arguments[0]
    return inner


def describe(error: ErrorDetails, path: Sequence[str], annotation: object) -> tuple[int, str]:
    """Return one error in words, and how much it says: the largest is shown of one key's."""
    key = ".".join(path) or "the configuration"
    bare = unwrap(annotation)[0]
    if error["type"] == "extra_forbidden" and isinstance(bare, type):
        assert issubclass(bare, Section)
        known = list(bare.model_fields)
        hint = did_you_mean(path[-1], known) or f"; keys here: {', '.join(known)}"
        return 2, f"{key}: not a key{hint}"
    if error["type"] == "value_error":
        joint = "." if is_section(annotation) else ": "
        return 2, f"{key}{joint}{error['ctx']['error']}"
    allowed = describe_type(annotation)
    if error["type"] == "missing" and not isinstance(error["input"], list | tuple):
        return 1, f"{key}: missing; allowed: {allowed}"
    given = error["input"]
    hint = ""
    if isinstance(given, str):
        hint = did_you_mean(given, literals(annotation))
    elif isinstance(given, int | float) and allows_text(annotation):
        hint = f'; text that looks like a number is quoted: "{given}"'
    return 1, f"{key}: given {show(given)}; allowed: {allowed}{hint}"


def show(given: object) -> str:
    """Return a value as YAML, on one line and not too long."""
    text = " ".join(write_yaml(given, flow=True).split())
    return text if len(text) <= LONGEST else text[: LONGEST - 4] + " ..."


def literals(annotation: object) -> list[str]:
    """Return the words that a type allows."""
    members = [unwrap(branch)[0] for branch in branches(annotation)]
    return [
        word
        for member in members
        if get_origin(member) is Literal
        for word in get_args(member)
        if isinstance(word, str)
    ]


def allows_text(annotation: object) -> bool:
    """Return whether any text is allowed."""
    return any(unwrap(branch)[0] is str for branch in branches(annotation))


def describe_type(annotation: object) -> str:
    """Return what a type allows: ``auto or a whole number from 1 to 1,024``."""
    bare, metadata = unwrap(annotation)
    arguments = get_args(bare)
    if get_origin(bare) in (Union, types.UnionType):
        nullable = ["null"] if type(None) in arguments else []
        choices = " or ".join(map(describe_type, branches(annotation))).split(" or ")
        return either([*nullable, *choices])
    if get_origin(bare) is Literal:
        return either([str(word) for word in arguments])
    for note in metadata:
        if (words := WORDS.get(getattr(note, "func", None))) is not None:
            return words
    if get_origin(bare) is tuple:
        return f"[{', '.join(map(describe_type, arguments))}]"
    if get_origin(bare) is list:
        return f"a list, each {describe_type(arguments[0])}"
    if get_origin(bare) is dict:
        return f"names, each with {describe_type(arguments[1])}"
    if isinstance(bare, type) and issubclass(bare, Section):
        return f"keys below it: {', '.join(bare.model_fields)}"
    kinds = {bool: "true or false", str: "text", int: "a whole number", float: "a finite number"}
    assert isinstance(bare, type)
    return kinds[bare] + describe_bounds(metadata)


def describe_bounds(metadata: Sequence[object]) -> str:
    """Return the bounds of a number in words; empty where there are none."""
    least = max((float(str(note.ge)) for note in metadata if isinstance(note, Ge)), default=None)
    above = max((float(str(note.gt)) for note in metadata if isinstance(note, Gt)), default=None)
    most = min((float(str(note.le)) for note in metadata if isinstance(note, Le)), default=None)
    if least is not None and most is not None:
        return f" from {least:,.0f} to {most:,.0f}"
    if above is not None:
        return f" above {above:,.0f}" + (f" up to {most:,.0f}" if most is not None else "")
    return f" of at least {least:,.0f}" if least is not None else ""


def either(words: Sequence[str]) -> str:
    """Return alternatives: ``a, b or c``."""
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
