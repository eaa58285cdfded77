"""The recipes in jobs/: they load, every name in them holds, and the values are the notebooks'."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cnnvis_ray.config import Config, load_config
from cnnvis_ray.explanation import check_methods
from cnnvis_ray.maximization import check_names
from cnnvis_ray.network import LayerTable, skeleton, trace_layers
from tests.conftest import ROOT

RECIPES = sorted((ROOT / "jobs").rglob("*.yaml"))
VARIABLES = ("CNNVIS_ANIMALS", "CNNVIS_IMAGES", "CNNVIS_STACK", "CNNVIS_SHARED")
SEEDS = ROOT / "jobs" / "seeds"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    """Load a recipe with every variable set."""
    for name in VARIABLES:
        monkeypatch.setenv(name, f"/{name.lower()}")

    def read(path: Path, *sets: str) -> Config:
        return load_config(str(path), sets)

    return read


@pytest.fixture(scope="module")
def trace() -> Callable[[str], LayerTable]:
    """Trace each network once, without its weights."""
    known: dict[str, LayerTable] = {}

    def layers(name: str) -> LayerTable:
        if name not in known:
            module, preprocess = skeleton(name, None, None)
            known[name] = trace_layers(module, preprocess, name)
        return known[name]

    return layers


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_every_name_holds(
    path: Path, load: Callable[..., Config], trace: Callable[[str], LayerTable]
) -> None:
    config = load(path)
    table = trace(config.network.name)
    named = [config.layers, config.maximize.layers, config.explain.layers, config.reduce.layers]
    for layers in named:
        table.select(layers or [])
    for layer in config.maximize.overrides:
        (found,) = table.select([layer])
        channels = config.maximize.for_layer(layer).channels
        assert isinstance(channels, str)
        assert int(channels.split(":")[1]) <= found.channels
    check_names(config.maximize)
    check_methods(config.explain.methods)
    assert str(path.relative_to(ROOT)) in path.read_text() or path.parent.name == "jobs"


def test_animals_are_named_in_english(load: Callable[..., Config]) -> None:
    config = load(SEEDS / "animals.yaml")
    assert config.images.label_names == {
        "cane": "dog",
        "cavallo": "horse",
        "elefante": "elephant",
        "farfalla": "butterfly",
        "gallina": "chicken",
        "gatto": "cat",
        "mucca": "cow",
        "pecora": "sheep",
        "ragno": "spider",
        "scoiattolo": "squirrel",
    }
    assert config.layers == [f"block{number}" for number in range(1, 6)]
    assert (config.explain.shown, config.explain.num_shown) == ("first", 10)
    assert config.explain.probe is True


def test_maximization_has_the_notebook_s_values(load: Callable[..., Config]) -> None:
    config = load(SEEDS / "maximization.yaml")
    layers = [config.maximize.for_layer(f"conv{block}_1") for block in range(1, 6)]
    assert config.seed == 100
    assert [layer.size for layer in layers] == [100, 110, 120, 140, 160]
    assert [layer.dist for layer in layers] == [
        (0, 2),
        (0, 0.5),
        (-0.1, 0.2),
        (-0.2, 0.2),
        (-0.25, 0.25),
    ]
    assert [layer.channels for layer in layers] == ["20:30"] * 4 + ["25:35"]
    assert {(layer.learning_rate, layer.steps, layer.objective) for layer in layers} == {
        (0.01, 200, "squared_maximum")
    }
    assert {(layer.attempts, layer.transforms, layer.captured) for layer in layers} == {
        (1, "none", "in_place")
    }


def test_occlusion_has_the_notebook_s_squares_and_keras_names(
    load: Callable[..., Config], trace: Callable[[str], LayerTable]
) -> None:
    config = load(SEEDS / "occlusion.yaml")
    explain = config.explain
    assert (explain.patch, explain.stride, explain.fill) == (56, 56, (250, 128, 128))
    assert (explain.shown, explain.num_shown, len(config.layers)) == ("first", 10, 4)
    found = [trace("vgg16").select([name])[0].name for name in config.layers]
    assert found == ["features.0", "features.5", "features.10", "features.17"]


def test_the_image_set_is_pool1_flattened_to_the_notebook_s_map(
    load: Callable[..., Config], trace: Callable[[str], LayerTable]
) -> None:
    config = load(SEEDS / "image_set.yaml")
    (pool1,) = trace("vgg16").select(config.layers)
    assert pool1.height is not None
    assert pool1.width is not None
    assert pool1.channels * pool1.height * pool1.width == 802_816
    assert config.extract.pooling == "flatten"
    reduce, mosaic = config.reduce, config.mosaic
    assert (reduce.learning_rate, reduce.perplexity, reduce.theta) == (150, 30, 0.2)
    assert (mosaic.width, mosaic.height, mosaic.tile) == (4000, 3000, 100)


@pytest.mark.parametrize(
    ("network", "layer"),
    [
        ("alexnet", "features.0"),
        ("vgg16", "features.0"),
        ("resnet18", "conv1"),
        ("resnet50", "conv1"),
        ("timm:seresnet50", "conv1"),
        ("tests.explanation.networks:unet", "down.0"),
        ("tests.explanation.networks:control", "features.0"),
    ],
)
def test_the_journey_s_networks_have_their_first_layer(
    network: str, layer: str, trace: Callable[[str], LayerTable]
) -> None:
    table = trace(network)
    (found,) = table.select([layer])
    kernels = [each for each in table.layers if each.kind == "Conv2d"]
    assert found == kernels[0]
