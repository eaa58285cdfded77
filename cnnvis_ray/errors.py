"""What can go wrong, and the exit code that each way carries.

A message is one line: what was given, what is allowed, what to do. A `RefusedError` of several
faults has a line for each.

    CnnvisError                 1
    ├── RefusedError            2    configuration, input, a run of another identity
    ├── IncompleteError         1    done, but something is missing or below its bar
    ├── HeldError               3    another driver works on this run
    ├── InterruptedRunError   130    stopped in good order; the run can be continued
    └── ImageRejectedError      1    one image that cannot be used: becomes a reject, ends no run
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class CnnvisError(Exception):
    """A failure that a person can cause; they see its text and no traceback."""

    exit_code = 1


class RefusedError(CnnvisError):
    """Nothing was computed: the configuration or the input cannot work."""

    exit_code = 2


class IncompleteError(CnnvisError):
    """The run ended and kept what it has, but something is missing or below its bar."""

    exit_code = 1


class HeldError(CnnvisError):
    """Another driver holds the run directory."""

    exit_code = 3


class InterruptedRunError(CnnvisError):
    """The run was told to stop; what is committed stays and the next run continues."""

    exit_code = 130


class ImageRejectedError(CnnvisError):
    """One image cannot be used.

    Attributes:
        stage: where it failed: ``read``, ``decode`` or ``worker``.
    """

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(reason)
        self.stage = stage

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.stage, str(self))


def near(word: str, known: Iterable[str], at_most: int = 5) -> list[str]:
    """Return the known names closest to a mistyped one, best first."""
    return get_close_matches(word, list(known), n=at_most, cutoff=0.5)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of a refusal: ``; did you mean mean or max?``; empty where none is near."""
    names = near(word, known, at_most=3)
    return f"; did you mean {' or '.join(names)}?" if names else ""


class Refusals:
    """Gathers refusals of independent checks, so that a person sees all of them at once.

    Attributes:
        messages: one per line, each once, in the order in which they came.
    """

    def __init__(self) -> None:
        self.messages: list[str] = []

    @contextmanager
    def gather(self) -> Iterator[None]:
        """Keep a refusal that the block raises and go on."""
        try:
            yield
        except RefusedError as refusal:
            self.messages.extend(str(refusal).splitlines())

    def attempt(self, check: Callable[[], object]) -> None:
        """Run one check and keep its refusal."""
        with self.gather():
            check()

    def raise_all(self) -> None:
        """Raise one refusal with every message, one per line, if there is any.

        Raises:
            RefusedError: at least one check refused.
        """
        if self.messages:
            raise RefusedError("\n".join(dict.fromkeys(self.messages)))
