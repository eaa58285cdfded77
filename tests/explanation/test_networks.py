"""The seeds' networks: their shapes, and a real run of the explaining worker on each."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
from PIL import Image
from torchvision import models

from cnnvis_ray.config import Network, load_config
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.explanation import Explainer, HeatTask, Wanted, decide_setup
from cnnvis_ray.explanation.groups import Shown
from cnnvis_ray.explanation.image_sheets import Mask, draw_overview
from cnnvis_ray.images import open_source
from cnnvis_ray.ledger import Pass
from cnnvis_ray.network import build_module, resolve_network, trace_layers
from cnnvis_ray.pictures.colours import PALETTE
from cnnvis_ray.pictures.drawing import Line
from cnnvis_ray.pictures.drawing import Shown as Picture

SMALL = "network.preprocess={resize: 72, crop: 64}"
OWN = "network.preprocess=auto"  # what the network's own module states
HEAVY = (pytest.mark.slow, pytest.mark.timeout(600))  # up to 138 million weights are drawn
METHODS = "[occlusion, saliency, integrated_gradients, grad_cam, guided_backprop, guided_grad_cam]"
CASES = [
    pytest.param("alexnet", SMALL, "conv5", (256, 3, 3), "classes", "features.11", marks=HEAVY),
    pytest.param("resnet18", SMALL, "layer4.1", (512, 2, 2), "classes", "layer4", marks=HEAVY),
    ("tests.explanation.networks:unet", OWN, "bottom", (16, 16, 16), "mask", "bottom"),
    ("tests.explanation.networks:control", OWN, "features", (8, 28, 28), "numbers", "features"),
    pytest.param("vgg16", SMALL, "conv5_3", (512, 4, 4), "classes", "features", marks=HEAVY),
    pytest.param("resnet50", SMALL, "layer4.2", (2048, 2, 2), "classes", "layer4", marks=HEAVY),
    pytest.param(
        "timm:seresnet50", SMALL, "layer4.2", (2048, 2, 2), "classes", "layer4", marks=HEAVY
    ),
    pytest.param(
        "timm:legacy_seresnet50", SMALL, "layer4.2", (2048, 2, 2), "classes", "layer4", marks=HEAVY
    ),
]


def write_photos(folder: Path, count: int = 3) -> None:
    for index in range(count):
        coarse = np.random.default_rng(index).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        path = folder / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((80, 72), Image.Resampling.BICUBIC).save(path)


def explained(tmp_path: Path, name: str, *sets: str) -> tuple[Explainer, list[dict[str, object]]]:
    """Run the worker in this process on two photos, one of them with sheet and curves."""
    write_photos(tmp_path / "photos")
    own = [
        f"run_dir={tmp_path / 'run'}",
        f"images.source={tmp_path / 'photos'}",
        f"network.name={name}",
        "network.weights=random",
        f"explain={{methods: {METHODS}, patch: 16, stride: 16, batch_size: 4, map_size: 8}}",
        *sets,
    ]
    config = load_config(None, own)
    network = resolve_network(config.network, config.seed)
    table = trace_layers(build_module(network), network.preprocess, network.name)
    shown = tuple(table.select(config.layers))
    setup = decide_setup(config, open_source(config.images), network, table, shown)
    worker = Explainer(setup, "cpu", 1)
    wanted = (Wanted(0, "0.png", True, True), Wanted(2, "2.png", False, False))
    report = worker(HeatTask("000000.r0.x", Pass("explain", {}), wanted))
    assert report.unreadable == ()
    (shard,) = (tmp_path / "run" / "explanation" / "heat").glob("*.parquet")
    return worker, pq.read_table(shard).to_pylist()


@pytest.mark.parametrize(("name", "preprocess", "layer", "shape", "kind", "cam"), CASES)
def test_a_seeds_network(
    tmp_path: Path,
    name: str,
    preprocess: str,
    layer: str,
    shape: tuple[int, int, int],
    kind: str,
    cam: str,
) -> None:
    worker, rows = explained(tmp_path, name, preprocess, f"layers=[{layer}]")
    (shown,) = worker.setup.shown
    assert (shown.channels, shown.height, shown.width) == shape
    assert worker.setup.kind == kind
    assert worker.setup.cam_layer == cam
    maps = [row for row in rows if row["method"] != "random"]
    assert len(maps) == 2 * 6
    for row in maps:
        values = np.array(row["map"], np.float32)
        assert values.shape == (64,)
        assert values.min() >= 0
        assert values.max() <= 1
    curves = [row for row in rows if row["deletion"] is not None]
    assert len(curves) == (0 if kind == "numbers" else 7)  # six methods and random order
    sheets = sorted(path.name for path in (tmp_path / "run/explanation/images").iterdir())
    assert sheets == ["000000000000-0-occluded.png", "000000000000-0.png"]


def test_timm_states_what_its_networks_need() -> None:
    network = resolve_network(Network(name="timm:test_resnet", weights="random"), 0)
    assert (network.preprocess.resize, network.preprocess.crop) == (168, 160)
    assert network.preprocess.interpolation == "bilinear"
    assert network.preprocess.channels == 3
    with pytest.raises(RefusedError, match=r"timm:seresnet500.*seresnet50"):
        resolve_network(Network(name="timm:seresnet500", weights="random"), 0)


def test_one_image_or_many_gives_the_same_maps(tmp_path: Path) -> None:
    network = "tests.explanation.networks:pooled"
    _, both = explained(tmp_path, network, "layers=[conv]")
    worker, _ = explained(tmp_path / "other", network, "layers=[conv]")
    worker(HeatTask("000001.r0.x", Pass("explain", {}), (Wanted(2, "2.png", False, False),)))
    folder = tmp_path / "other/run/explanation/heat"
    (alone,) = folder.glob("000001*.parquet")
    single = pq.read_table(alone).to_pylist()
    together = [row for row in both if row["image_id"] == 2]
    assert single == together


def test_a_layer_without_maps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="no maps to weight"):
        explained(
            tmp_path,
            "tests.explanation.networks:control",
            "layers=[features]",
            "explain.cam_layer=head",
        )


def test_a_class_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"explain\.target: given 9"):
        explained(
            tmp_path, "tests.explanation.networks:pooled", "layers=[conv]", "explain.target=9"
        )


def test_an_unknown_method_is_refused_when_the_setup_is_decided(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"explain.methods: 'lime' is unknown"):
        explained(
            tmp_path,
            "tests.explanation.networks:pooled",
            "layers=[conv]",
            "explain.methods=[lime]",
        )


def test_weights_without_a_head_give_sheets_of_channels(tmp_path: Path) -> None:
    module = models.squeezenet1_1()
    known = {
        k: v for k, v in module.state_dict().items() if k.startswith(("features.0", "features.3"))
    }
    safetensors.torch.save_file(known, tmp_path / "part.safetensors")
    weights = f"network.weights={tmp_path / 'part.safetensors'}"
    worker, rows = explained(tmp_path, "squeezenet1_1", SMALL, weights, "layers=[features.3]")
    assert worker.setup.kind is None
    assert rows == []
    (sheet,) = (tmp_path / "run/explanation/images").iterdir()
    with Image.open(sheet) as opened:
        assert opened.width > 1200  # the image, and beside it 24 channels in rows of 8


def test_a_sheet_as_a_notebook_has_it(tmp_path: Path) -> None:
    look = (
        "pictures={columns: {channels: 10}, channels: gray, first_channel: 1, background: white}"
    )
    shown = ("explain.methods=[]", "explain.shown=first", "explain.num_shown=10")
    worker, rows = explained(
        tmp_path, "tests.explanation.networks:unet", "layers=[bottom]", *shown, look
    )
    assert not [row for row in rows if row["method"] != "random"]
    photo = np.random.default_rng(0).integers(0, 255, (1, 32, 32, 3), np.uint8)
    group = Shown(worker.setup, worker.module, [Wanted(0, "0.png", True, False)], photo, "cpu")
    overview = draw_overview("0.png", [], photo[0], {}, {}, worker.setup.look, "dog")
    sheet = group.sheet(0, overview, beside=True)
    texts = [item.text for item in sheet.items if isinstance(item, Line)]
    assert "dog" in texts
    assert [text for text in texts if text.startswith("channel ")] == [
        f"channel {number}" for number in range(1, 11)
    ]
    maps = [item for item in sheet.items if isinstance(item, Picture)][1:]
    assert len(maps) == 10  # none is silent
    assert len({item.top for item in maps}) == 1
    assert min(item.left for item in maps) >= overview.width
    pixels = np.concatenate([np.asarray(item.image).reshape(-1, 3) for item in maps])
    assert (np.ptp(pixels, axis=1) == 0).all()  # grey
    assert sheet.paper == (255, 255, 255)


def test_the_sheet_of_a_segmentation_network_has_its_mask(tmp_path: Path) -> None:
    worker, _ = explained(tmp_path, "tests.explanation.networks:unet", "layers=[bottom]")
    sheet = worker.store.path("explanation/images/000000000000-0.png")
    with Image.open(sheet) as opened:
        assert opened.width >= 8 * 236  # input, mask, and seven maps of six methods
    classes = np.zeros((8, 8), np.int64)
    classes[:2] = 2
    mask = Mask(classes, {0: "class 0", 2: "class 2"})
    over, alone, _ = mask.tiles(np.full((32, 32, 3), 100, np.uint8), (0, 0, 0))
    assert alone.image is not None
    assert over.image is not None
    assert alone.image.getpixel((10, 20)) == PALETTE[1]  # the rarer class, on top
    assert alone.image.getpixel((10, 200)) == PALETTE[0]
    assert over.image.getpixel((10, 200)) == tuple((100 + value) // 2 for value in PALETTE[0])
