"""YAML as version 1.2 has it, without objects, repeated keys and loops.

PyYAML reads version 1.1, in which ``yes`` is true, ``16:32`` is 992, ``1e-3`` is text and
``2026-11-24`` a date. Here numbers, true, false and null are those of the core schema of YAML 1.2
(https://yaml.org/spec/1.2.2/#103-core-schema). Everything else is text, and so is every key of a
mapping, as it is written: ``{0: zero, no: Norway}`` has the keys ``"0"`` and ``"no"``.
"""

import re
from collections.abc import Hashable

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode

TAG = "tag:yaml.org,2002:"
INT = r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"
FLOAT = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
MOST_VALUES = (
    1_000_000  # aliases of aliases grow without bound; the largest configuration does not
)


class Loader(yaml.SafeLoader):
    """Reads one document; see the module."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  # PyYAML fills it below
    yaml_constructors = {}  # noqa: RUF012

    def construct_number(self, node: ScalarNode) -> int | float:
        """Return a whole number, in base 8, 10 or 16, or one with a fraction."""
        text = self.construct_scalar(node).lower()
        try:
            if node.tag == f"{TAG}float":
                return float(re.sub(r"\.(inf|nan)$", r"\1", text))
            return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        except ValueError:
            raise refusal(node, f"{text[:40]!r} is not a number") from None

    def construct_flag(self, node: ScalarNode) -> bool:
        """Return true or false."""
        text = self.construct_scalar(node).lower()
        if text not in ("true", "false"):
            raise refusal(node, f"{text[:40]!r} is neither true nor false")
        return text == "true"

    def construct_text(self, node: ScalarNode) -> str:
        """Return text that a file can hold."""
        text = self.construct_scalar(node)
        if re.search("[\0\ud800-\udfff]", text):
            raise refusal(node, "text holds a null or half a character")
        return text

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, object]:
        """Return a mapping whose keys are text; a key that is there twice is refused."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, ScalarNode):
                raise refusal(key, "a key is not text")
            if key.tag != f"{TAG}merge":
                key.tag = f"{TAG}str"
                if key.value in seen:
                    raise refusal(key, f"the key {key.value!r} is there twice")
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)

    def refuse_tag(self, node: Node) -> None:
        """Refuse a tag that would make an object."""
        raise refusal(node, f"the tag {node.tag!r} is not allowed")


for kind, constructor in {
    "null": Loader.construct_yaml_null,
    "bool": Loader.construct_flag,
    "int": Loader.construct_number,
    "float": Loader.construct_number,
    "str": Loader.construct_text,
    "seq": Loader.construct_yaml_seq,
    "map": Loader.construct_yaml_map,
}.items():
    Loader.add_constructor(f"{TAG}{kind}", constructor)
Loader.add_constructor(None, Loader.refuse_tag)


class Dumper(yaml.SafeDumper):
    """Writes YAML that versions 1.1 and 1.2 read alike: text is quoted where either would not."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: list(resolvers)
        for first, resolvers in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }

    def ignore_aliases(self, data: object) -> bool:
        """Write what is there twice twice."""
        return True


for reader in (Loader, Dumper):
    for kind, pattern, firsts in (
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
        ("int", INT, list("-+0123456789")),
        ("float", FLOAT, list("-+.0123456789")),
        ("merge", r"<<", ["<"]),
    ):
        reader.add_implicit_resolver(f"{TAG}{kind}", re.compile(rf"(?:{pattern})\Z"), firsts)


def read_yaml(text: str | bytes) -> object:
    """Return the value of one YAML document; None for an empty one.

    Raises:
        ValueError: it is not YAML, or not UTF-8; the text says where, in one line.
    """
    try:
        loader = Loader(text.decode() if isinstance(text, bytes) else text)
        node = loader.get_single_node()
        value = None if node is None else loader.construct_object(node, deep=True)
        check_size(value, [0])
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except yaml.MarkedYAMLError as failure:
        mark = failure.problem_mark or failure.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = failure.problem or failure.context or "it cannot be read"
        if "recursive" in problem:
            problem = "a value contains itself"
        raise ValueError(where + " ".join(problem.split())) from None
    except yaml.YAMLError as failure:
        raise ValueError(" ".join(str(failure).split())) from None
    return value


def write_yaml(value: object, flow: bool = False) -> str:
    """Return a value as YAML that `read_yaml` reads back; ``flow`` keeps it on one line."""
    text: str = yaml.dump(
        value,
        Dumper=Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=flow,
        width=float("inf") if flow else 80,
    )
    return text.removesuffix("\n...\n").removesuffix("\n") if flow else text


def check_size(value: object, count: list[int]) -> None:
    """Refuse a document that aliases make enormous; ``count`` is how many values were seen."""
    count[0] += 1
    if count[0] > MOST_VALUES:
        raise ValueError(f"it has more than {MOST_VALUES:,} values")
    if isinstance(value, dict | list):
        for below in value.values() if isinstance(value, dict) else value:
            check_size(below, count)


def refusal(node: Node, problem: str) -> ConstructorError:
    """Return the error that names a place in the document."""
    return ConstructorError(None, None, problem, node.start_mark)
