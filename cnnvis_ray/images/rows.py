"""Choosing rows of an archive: `images.indices` and `images.limit`, and the keys of rows.

Indices are a list, a range like ``"0:2000"`` or ``"::2"``, or a file with one number per line.
Order and repeats are kept: the second appearance of row 17 has the key ``17#1``, the third
``17#2``.
Rows are counted from 0; what lies outside the archive is refused, not left out silently.
"""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.images.entries import Entry

RANGE = re.compile(r"\s*(-?\d*)\s*:\s*(-?\d*)\s*(?::\s*(-?\d*)\s*)?")
KEY = re.compile(r"(\d+)(?:#\d+)?")


def row_of(key: str) -> int:
    """Return the row number in a row's key.

    Raises:
        ValueError: the key does not name a row.
    """
    match = KEY.fullmatch(key)
    if match is None:
        raise ValueError(f"{key!r} is not a row's key, like 17 or 17#1")
    return int(match[1])


def choose_rows(
    indices: Sequence[int] | str | None, limit: int | None, num_rows: int
) -> Sequence[int]:
    """Return the rows that the configuration names, the first ``limit`` of them.

    Raises:
        RefusedError: the indices are malformed, name no row, or a row that does not exist.
    """
    if indices is None:
        rows: Sequence[int] = range(num_rows)
    elif not isinstance(indices, str):
        rows = indices
    elif match := RANGE.fullmatch(indices):
        rows = rows_in_range(indices, match, num_rows)
    else:
        rows = rows_in_file(Path(indices))
    if not rows:
        raise RefusedError(f"images.indices {indices!r} choose none of the {num_rows} rows")
    check_bounds(rows, num_rows)
    return rows[:limit]


def rows_in_range(text: str, match: re.Match[str], num_rows: int) -> range:
    """Read ``start:stop:step``, each of which may be left out."""
    start, stop, step = (int(part) if part else None for part in match.groups())
    if step == 0 or any(part is not None and part < 0 for part in (start, stop, step)):
        raise RefusedError(
            f"images.indices {text!r}: negative numbers and a step of 0 are not allowed; "
            "write a range like 0:2000 or ::2"
        )
    return range(start or 0, num_rows if stop is None else stop, step or 1)


def rows_in_file(path: Path) -> list[int]:
    """Read one row number per line; empty lines are passed over."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else "not UTF-8 text"
        raise RefusedError(
            f"images.indices {str(path)!r} is neither a range like 0:2000 nor a readable file "
            f"with one number per line ({reason})"
        ) from None
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if not re.fullmatch(r"-?\d+", line.strip()):
            raise RefusedError(
                f"images.indices {str(path)!r}: line {number} is {line.strip()[:40]!r}, "
                "not one whole number"
            )
        rows.append(int(line))
    return rows


def check_bounds(rows: Sequence[int], num_rows: int) -> None:
    """Refuse rows that the archive does not have."""
    lowest, highest = (rows[0], rows[-1]) if isinstance(rows, range) else (min(rows), max(rows))
    outside = lowest if lowest < 0 else highest
    if not 0 <= outside < num_rows:
        raise RefusedError(
            f"images.indices name row {outside}; the source has {num_rows} rows, "
            f"0 to {num_rows - 1}"
        )


def entries_of(rows: Sequence[int], version: str) -> tuple[Entry, ...]:
    """Return rows as entries: one for a contiguous range, otherwise one per row."""
    if (span := contiguous(rows)) is not None:
        return (Entry("", version, (span.start, span.stop)),)
    return tuple(Entry(key, version) for key in keys_of(rows))


def shard_entries(
    rows: Sequence[int], shards: Sequence[tuple[str, str, int]]
) -> tuple[Entry, ...]:
    """Return rows, counted through several archives, as entries of each.

    Args:
        rows: chosen rows.
        shards: of each archive what stands before its rows in keys, its version, and the number
            of rows up to its end.
    """
    ends = [end for _, _, end in shards]
    starts = [0, *ends[:-1]]
    if (span := contiguous(rows)) is not None:
        return tuple(
            Entry(prefix, version, (max(span.start, start) - start, min(span.stop, end) - start))
            for (prefix, version, end), start in zip(shards, starts, strict=True)
            if max(span.start, start) < min(span.stop, end)
        )
    entries = []
    for row, key in zip(rows, keys_of(rows), strict=True):
        at = bisect_right(ends, row)
        prefix, version, _ = shards[at]
        _, mark, repeat = key.partition("#")
        entries.append(Entry(f"{prefix}{row - starts[at]}{mark}{repeat}", version))
    return tuple(entries)


def contiguous(rows: Sequence[int]) -> range | None:
    """Return rows that follow one another as a range, others as None."""
    span = range(rows[0], rows[0] + len(rows))
    if rows == span or (rows[-1] == span[-1] and list(rows) == list(span)):
        return span
    return None


def keys_of(rows: Sequence[int]) -> Iterator[str]:
    """Return the keys of rows; repeats have keys of their own."""
    if isinstance(rows, range):
        yield from map(str, rows)
        return
    seen: Counter[int] = Counter()
    for row in rows:
        yield f"{row}#{seen[row]}" if seen[row] else str(row)
        seen[row] += 1
