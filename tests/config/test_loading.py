"""A configuration is read whole or refused with a line for every fault."""

from pathlib import Path

import pytest
import yaml

from cnnvis_ray.config import (
    Config,
    Maximize,
    Mosaic,
    Reduce,
    Section,
    commented_config,
    dump_config,
    load_config,
    parse_config,
    recipe_of,
)
from cnnvis_ray.errors import Refusals, RefusedError


def refusal(text: str | bytes, *sets: str) -> str:
    with pytest.raises(RefusedError) as refused:
        parse_config(text, "test.yaml", sets)
    return str(refused.value)


def keys_of(section: type[Section]) -> dict[str, str | None]:
    """Return the description of every key, dotted."""
    keys: dict[str, str | None] = {}
    for name, field in section.model_fields.items():
        below = field.annotation
        if isinstance(below, type) and issubclass(below, Section):
            keys |= {f"{name}.{key}": text for key, text in keys_of(below).items()}
        else:
            keys[name] = field.description
    return keys


def test_the_commented_configuration_is_the_defaults_with_every_key() -> None:
    text = commented_config()
    assert parse_config(text, "init") == Config()
    tree = yaml.safe_load(text)
    written = [
        f"{name}.{key}" if isinstance(value, dict) else name
        for name, value in tree.items()
        for key in (value if isinstance(value, dict) else [None])
    ]
    assert sorted(written) == sorted(keys_of(Config))
    words = " ".join(text.replace("# ", " ").split())
    for key, description in keys_of(Config).items():
        assert description, key
        assert " ".join(description.split()) in words, key
    assert max(map(len, text.splitlines())) <= 99


def test_keys_that_people_change_are_on_top() -> None:
    tree = yaml.safe_load(commented_config())
    assert list(tree)[:4] == ["run_dir", "images", "network", "layers"]
    assert list(tree["images"])[:3] == ["source", "labels", "limit"]


ROUND_TRIPS = [
    "layers=[conv1_1, pool5]",
    "network.preprocess={resize: 8, crop: 8}",
    "images.source='16:32'",
    "images.labels='yes'",
    "images.label_names={0: zero, no: Norway, 2026-11-24: '1e-3', a: '$${HOME}'}",
    "maximize.overrides={features.2: {size: [8, 9], dist: [-0.1, 1e-7], channels: 0:3}}",
    "cluster.deadline=2026-11-23T06:30:00",
    "mosaic.background='$$${x}'",
]


def test_a_dumped_configuration_is_read_back() -> None:
    config = load_config(None, ROUND_TRIPS)
    assert config.images.label_names == {
        "0": "zero",
        "no": "Norway",
        "2026-11-24": "1e-3",
        "a": "${HOME}",
    }
    assert parse_config(dump_config(config), "again") == config
    assert dump_config(parse_config(dump_config(config), "again")) == dump_config(config)


def test_a_configuration_that_the_first_version_stored_is_read() -> None:
    stored = """\
run_dir: /runs/a b
seed: 0
images: {source: [a.h5, b.h5], indices: '::2', labels: 'yes', limit: null, max_reject_fraction: 1.0e-05}
network: {name: vgg16, weights: random, preprocess: {resize: 8, crop: 8, channels: 1, mean: [0.0], std: [1.0]}}
maximize: {channels: 0:16, dist: [-0.1, 0.1], size: 128, overrides: {'5': {channels: [1]}}}
cluster: {deadline: 06:30, gpus_per_worker: 0.5}
"""  # noqa: E501  # as it was
    config = parse_config(stored, "config.yaml")
    assert config.images.indices == "::2"
    assert config.cluster.deadline == "06:30"
    assert config.maximize.for_layer("5").channels == [1]


def test_every_fault_has_a_line() -> None:
    lines = refusal(
        "imags: 3\nextract: {poolin: mean, dtype: f8}\n"
        "mosaic: {tile: big}\nrun_dir: ${CNNVIS_NOPE}",
        "nonsense",
    ).splitlines()
    assert sorted(lines) == sorted(
        [
            "--set 'nonsense' is not KEY=VALUE, like extract.batch_size=16",
            "imags: not a key; did you mean images or stages?",
            "extract.poolin: not a key; did you mean pooling?",
            "extract.dtype: given f8; allowed: float16 or float32",
            "mosaic.tile: given big; allowed: a whole number from 4 to 1,024",
            "run_dir: ${CNNVIS_NOPE} is not set in the environment; export it, "
            "or write $${CNNVIS_NOPE} for the text itself",
        ]
    )


def test_layers_are_named_in_faults_of_overrides() -> None:
    text = "maximize: {overrides: {conv1_1: {stepps: 3}, int: {dist: -1}, a.b: {size: [1]}}}"
    lines = refusal(text).splitlines()
    assert [line.split(":")[0] for line in sorted(lines)] == [
        "maximize.overrides.a.b.size",
        "maximize.overrides.conv1_1.stepps",
        "maximize.overrides.int.dist",
    ]
    many = refusal("maximize: {overrides: {conv1_1: {pictures: 20}}}")
    assert many.startswith("maximize.overrides.conv1_1.pictures: 20 pictures")


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        (
            "maximize.channels=16:8",
            'maximize.channels: 16:8 is not a range; use "8:16", a list, or all',
        ),
        ("explain.channels=5:5", 'explain.channels: 5:5 is not a range; use "5:6", a list,'),
        ("maximize.channels=7", "maximize.channels: given 7; allowed: all, a range"),
        ("maximize.channels='5:'", 'maximize.channels: 5: is not a range; use "0:16"'),
        ("explain.channels=[]", "explain.channels: given []; allowed"),
        ("maximize.channels=[3, -1]", "maximize.channels.1: given -1; allowed"),
        ("images.indices=[]", "images.indices: given []; allowed: null, a list"),
        ("images.indices=[0, -1]", "images.indices.1: given -1"),
        ("images.indices=5:5", "images.indices: 5:5 is not a range"),
        ("images.indices='-3:'", "images.indices: -3:: numbers of a range are not negative"),
        ("images.indices='::0'", "images.indices: ::0: numbers of a range"),
        ("seed=4294967296", "seed: given 4294967296; allowed: a whole number from 0 to 4,294"),
        ("seed=true", "seed: given true"),
        ("reduce.perplexity=.inf", "reduce.perplexity: given .inf; allowed: a finite number"),
        ("reduce.learning_rate=-5", "reduce.learning_rate: given -5; allowed: auto or"),
        ("reduce.whiten=yes", "reduce.whiten: given 'yes'; allowed: true or false"),
        ("maximize.directions=[[1, .nan]]", "maximize.directions.0.1: given .nan"),
        ("maximize.name=../evil", "maximize.name: '../evil' is not a name; use letters"),
        ("maximize.name=7", "maximize.name: given 7; allowed: a name"),
        ("cluster.deadline=2026-02-31T10:00", "cluster.deadline: '2026-02-31T10:00' is not"),
        ("cluster.deadline=2026-11-24", "cluster.deadline: '2026-11-24' is not a time"),
        ("explain.stride=60", "explain.stride: 60 pixels leave gaps"),
        ("explain.fill=[1, 2]", "explain.fill: given [1, 2]; allowed: [a whole number"),
        ("layers=[]", "layers: given []"),
        ("maximize.steps=0", "maximize.steps: given 0"),
        ("images.source=", "images.source: given null"),
        ("mosaic.layers=[1]", "mosaic.layers.0: given 1; allowed: text; text that looks like"),
        ("extract.dtype=float61", "extract.dtype: given float61; allowed: float16 or float32; d"),
        ("images=null", "images: given null; allowed: keys below it: source"),
        ("seed.deep=2", "seed: given"),
        ("network.preprocess={crop: 8}", "network.preprocess.resize: missing"),
        ("a=[", "--set a: '[' is not YAML: line 1"),
    ],
)  # fmt: skip
def test_one_line_says_what_was_given_and_what_is_allowed(setting: str, line: str) -> None:
    text = refusal("", setting)
    assert text.startswith(line)
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[1, 2]", "has no sections"),
        ("a: [", "is not YAML: line 1, column 5: "),
        ("a: &x [*x]", "a value contains itself"),
        ("a: &x {b: *x}", "a value contains itself"),
        ("? [1]\n: 2", "line 1, column 3: a key is not text"),
        ("seed: 1\nseed: 2", "line 2, column 1: the key 'seed' is there twice"),
        ("!!python/object:os.system x", "is not allowed"),
        ("seed: !!int x", "'x' is not a number"),
        ("seed: !!bool x", "'x' is neither true nor false"),
        ("seed: " + "9" * 5000, "is not a number"),
        ("[" * 3000, "nested too deeply"),
        ('a: "\\ud800"', "half a character"),
        ('a: "\\0"', "a null"),
        (b"a: \xff", "it is not UTF-8 text"),
        (
            "a: &a [x, x]\n"
            + "".join(
                f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}]\n"
                for a, b in zip("abcdefgh", "bcdefghi", strict=True)
            ),
            "more than 1,000,000 values",
        ),
    ],
)
def test_what_is_not_yaml_is_refused_in_a_line(text: str | bytes, part: str) -> None:
    line = refusal(text)
    assert part in line
    assert "\n" not in line


def test_scalars_are_those_of_yaml_1_2() -> None:
    config = parse_config(
        "images: {labels: no, hdf5_dataset: 16:32, image_column: 2026-11-24, limit: 0x10, "
        "thumbnail: 0o20, unit_size: 010}\n"
        "reduce: {learning_rate: 1e-3, perplexity: 1E1, whiten: TRUE}\n"
        "network: {name: on, weights: 1_000}\n"
        "cluster: {deadline: 2026-11-23 06:30:00}",
        "x",
    )
    images = config.images
    assert (images.labels, images.hdf5_dataset, images.image_column) == (
        "no",
        "16:32",
        "2026-11-24",
    )
    assert (images.limit, images.thumbnail, images.unit_size) == (16, 16, 10)
    assert (config.reduce.learning_rate, config.reduce.perplexity) == (0.001, 10.0)
    assert config.reduce.whiten is True
    assert (config.network.name, config.network.weights) == ("on", "1_000")
    assert config.cluster.deadline == "2026-11-23 06:30:00"
    assert load_config(None, ["maximize.channels=16:32"]).maximize.channels == "16:32"


@pytest.mark.parametrize("path", ["runs/base #2", "2026-11-24", "yes", "null", "0x10", "${HOME}x"])
def test_a_run_directory_is_a_path_and_nothing_else(path: str) -> None:
    config = load_config(None, ["seed=1"], run_dir=path)
    assert config.run_dir == path
    stored = dump_config(config)
    assert parse_config(stored, "stored") == config
    assert parse_config(stored, "stored", run_dir="elsewhere").run_dir == "elsewhere"


def test_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="cnnvis init"):
        load_config(str(tmp_path / "none.yaml"))


def test_environment_reaches_nested_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNVIS_TEST_DATA", "/data")
    monkeypatch.setenv("CNNVIS_TEST_SEED", "7")
    text = "images: {source: ['${CNNVIS_TEST_DATA}/photos']}\nseed: ${CNNVIS_TEST_SEED}"
    config = parse_config(text, "x")
    assert config.images.source == ["/data/photos"]
    assert config.seed == 7


def test_a_setting_does_not_reach_a_section_that_shares_an_anchor() -> None:
    config = parse_config("reduce: &maps {layers: [a]}\nmosaic: *maps", "x", ["reduce.layers=[b]"])
    assert (config.reduce.layers, config.mosaic.layers) == (["b"], ["a"])


def test_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().seed = 3  # type: ignore[misc]


# The keys of the first version: a recipe with default values has these and no others.
FIRST_REDUCE = {
    "pca_components": 50, "whiten": False, "metric": "euclidean", "perplexity": 30,
    "early_exaggeration": 12, "learning_rate": "auto", "theta": None, "iterations": 750,
}  # fmt: skip
FIRST_MOSAIC = {
    "layouts": ["scatter", "grid"], "width": 4000, "height": 3000, "tile": 100,
    "background": "white", "frame": "label",
}  # fmt: skip


def test_keys_that_came_later_leave_old_recipes_as_they_were() -> None:
    assert recipe_of(Reduce(), ["layers"]) == FIRST_REDUCE
    assert recipe_of(Mosaic(layers=["a"]), ["layers"]) == FIRST_MOSAIC
    assert recipe_of(Reduce(landmarks=500), {"layers"}) == FIRST_REDUCE | {"landmarks": 500}
    assert recipe_of(Maximize(), ()) == Maximize().model_dump(mode="json", exclude={"betas"})
    assert recipe_of(Maximize(betas=(0.9, 0.999)), ())["betas"] == [0.9, 0.999]


def test_refusals_keep_each_line_once() -> None:
    refusals = Refusals()
    for text in ("a\nb", "b", "c"):
        with refusals.gather():
            raise RefusedError(text)
    with pytest.raises(RefusedError) as refused:
        refusals.raise_all()
    assert str(refused.value) == "a\nb\nc"


# One value that fits each key: what follows is every way to get it wrong.
WRONG = [
    ".inf", "-.inf", ".nan", "-1", "0.5", "1e30", "99999999999999999999", "true", "null", "[]",
    "{}", "''", "text", "[[]]", "[null]", "{a: b}", "{? 1 : 2}", "2026-02-31", "~", "16:8", "[-1]",
    "[x, 3]", "'\\'", '"\\u0007"', "0o8", "*a", "!!binary aGk=", "!!set {a}", "${CNNVIS_NOPE}",
]  # fmt: skip
WORDS_OF_CODE = ("Error", "<class", "pydantic", "constrained", "function", "^", "\\d", "literal[")


@pytest.mark.parametrize("key", keys_of(Config))
def test_fuzz_every_key(key: str) -> None:
    for value in WRONG:
        try:
            config = parse_config("", "fuzz", [f"{key}={value}"])
        except RefusedError as refused:
            lines = str(refused).splitlines()
            assert len(lines) == len({line.split(":")[0] for line in lines}), lines
            for line in lines:
                assert line.startswith((key, f"--set {key}")), line
                assert not any(word in line for word in WORDS_OF_CODE), line
        else:
            assert parse_config(dump_config(config), "again") == config, value


def test_fuzz_two_keys_at_once_give_a_line_each() -> None:
    keys = [key for key in keys_of(Config) if "." in key]
    sets = [f"{key}={{? [x] : 1}}" for key in keys] + [f"{key}.x.y=1" for key in keys]
    assert len(refusal("", *sets).splitlines()) >= len(keys)
