"""Weights of every form reach the network, or are refused in one line that helps."""

import io
import json
import pickle
import re
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torchvision import models

from cnnvis_ray.config import Network
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.network import build_module, resolve_network, skeleton, trace_layers
from cnnvis_ray.network.loading.resolve import current_names
from cnnvis_ray.network.loading.weights import published_categories, wordnet_ids

VALUES = json.dumps({"resize": 8, "crop": 8, "mean": [0.5], "std": [0.5]})


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.second = nn.Conv2d(4, 2, 3)
        self.second.bias = None
        self.register_buffer("scale", torch.tensor([2.0]), persistent=False)
        self.scale: Tensor

    def forward(self, batch: Tensor) -> Tensor:
        result: Tensor = self.second(self.first(batch)) * self.scale
        return result


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(3, 3, bias=False)
        self.other = nn.Linear(3, 3, bias=False)
        self.other.weight = self.one.weight

    def forward(self, batch: Tensor) -> Tensor:
        result: Tensor = self.other(self.one(batch.mean((2, 3))))
        return result


def broken() -> nn.Module:
    raise KeyError("no\nsuch thing")


def leaving() -> nn.Module:
    sys.exit(0)


class Grey(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3)


class Leaving(nn.Module):
    def forward(self, batch: Tensor) -> Tensor:
        sys.exit(0)


NUMBER = 7
TINY = f"{__name__}:Tiny"


@pytest.fixture(scope="module")
def squeezenet() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        module: nn.Module = models.squeezenet1_1().eval()
        return module


def tiny_file(path: Path, state: dict[str, Tensor], **metadata: str) -> str:
    safetensors.torch.save_file(state, path, {"preprocess": VALUES, **metadata})
    return str(path)


def resolve(name: str, weights: object, **more: object) -> dict[str, Tensor]:
    config = Network.model_validate({"name": name, "weights": str(weights), **more})
    return resolve_network(config, 0).state


@pytest.mark.parametrize(
    "form", ["plain", "state_dict", "model", "data_parallel", "compiled", "half", "extra"]
)
def test_torch_files_of_every_form_give_the_same_outputs(
    squeezenet: nn.Module, tmp_path: Path, form: str
) -> None:
    state = squeezenet.state_dict()
    forms: dict[str, object] = {
        "plain": state,
        "state_dict": {"epoch": 3, "state_dict": state},
        "model": {"model": {f"module.{key}": value for key, value in state.items()}},
        "data_parallel": {f"module.{key}": value for key, value in state.items()},
        "compiled": {f"_orig_mod.{key}": value for key, value in state.items()},
        "half": {key: value.half() for key, value in state.items()},
        "extra": {
            **state,
            "aux.weight": torch.zeros(3),
            "bn.num_batches_tracked": torch.tensor(1),
        },
    }
    torch.save(forms[form], tmp_path / "weights.pth")
    config = Network(name="squeezenet1_1", weights=str(tmp_path / "weights.pth"))
    module = build_module(resolve_network(config, 0))
    batch = torch.rand(2, 3, 64, 64)
    tolerance = 2e-3 if form == "half" else 1e-6
    with torch.inference_mode():
        torch.testing.assert_close(module(batch), squeezenet(batch), atol=tolerance, rtol=1e-4)
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_safetensors_load_by_path_and_by_uri(squeezenet: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(squeezenet.state_dict(), path)
    by_path = resolve_network(Network(name="squeezenet1_1", weights=str(path)), 0)
    by_uri = resolve_network(Network(name="squeezenet1_1", weights=path.as_uri()), 0)
    assert by_path.state_hash == by_uri.state_hash
    assert by_path.preprocess.crop == 224
    assert by_path.categories is not None
    assert len(by_path.categories) == 1000
    assert by_path.weights == str(path)


def test_a_resolved_network_survives_pickling(squeezenet: nn.Module, tmp_path: Path) -> None:
    safetensors.torch.save_file(squeezenet.state_dict(), tmp_path / "w.safetensors")
    config = Network(name="squeezenet1_1", weights=str(tmp_path / "w.safetensors"))
    resolved = resolve_network(config, 0)
    again = pickle.loads(pickle.dumps(resolved))  # noqa: S301  # our own record
    batch = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(build_module(resolved)(batch), build_module(again)(batch))


def test_the_hash_sees_names_shapes_and_values(tmp_path: Path) -> None:
    state = dict(Tiny().state_dict())
    hashes = set()
    for change in (0.0, 1e-6):
        state["first.bias"] = torch.full((4,), change)
        path = tiny_file(tmp_path / "t.safetensors", state)
        hashes.add(resolve_network(Network(name=TINY, weights=path), 0).state_hash)
        hashes.add(resolve_network(Network(name=TINY, weights=path), 1).state_hash)
    assert len(hashes) == 2


def test_random_weights_follow_the_seed_and_leave_the_random_state() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    config = Network(name="squeezenet1_1", weights="random")
    first, again, other = (resolve_network(config, seed) for seed in (0, 0, 1))
    assert first.state_hash == again.state_hash != other.state_hash
    assert first.categories is None
    assert torch.equal(torch.get_rng_state(), before)


def test_a_users_factory_loads_and_keeps_its_own_buffers(tmp_path: Path) -> None:
    wanted = Tiny().eval()
    path = tiny_file(tmp_path / "t.safetensors", wanted.state_dict(), categories='["a", "b"]')
    resolved = resolve_network(Network(name=TINY, weights=path), 0)
    batch = torch.rand(2, 3, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(build_module(resolved)(batch), wanted(batch))
    assert resolved.categories == ("a", "b")
    assert resolved.preprocess.mean == (0.5, 0.5, 0.5)


def test_tied_tensors_need_be_stored_once(tmp_path: Path) -> None:
    wanted = Tied()
    path = tiny_file(tmp_path / "t.safetensors", {"one.weight": wanted.one.weight.detach()})
    resolved = resolve_network(Network(name=f"{__name__}:Tied", weights=path), 0)
    batch = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(build_module(resolved)(batch), wanted(batch).detach())


@pytest.mark.parametrize("left_out", ["first.weight", "first.bias", "second.weight"])
def test_what_the_weights_do_not_cover_cannot_be_used(tmp_path: Path, left_out: str) -> None:
    state = {key: value for key, value in Tiny().state_dict().items() if key != left_out}
    path = tiny_file(tmp_path / "t.safetensors", state)
    module = build_module(resolve_network(Network(name=TINY, weights=path), 0))
    with torch.inference_mode():
        assert bool(module(torch.rand(1, 3, 8, 8)).isnan().all())


def test_a_head_of_other_classes_loads_without_the_published_names(tmp_path: Path) -> None:
    torch.save(models.squeezenet1_1(num_classes=7).state_dict(), tmp_path / "w.pth")
    resolved = resolve_network(Network(name="squeezenet1_1", weights=str(tmp_path / "w.pth")), 0)
    assert resolved.arguments == {"num_classes": 7}
    assert resolved.categories is None
    assert build_module(resolved)(torch.rand(1, 3, 64, 64)).shape == (1, 7)


def test_googlenet_is_built_as_torchvision_does_for_trained_weights(tmp_path: Path) -> None:
    wanted = models.googlenet(aux_logits=True, transform_input=True, init_weights=False).eval()
    torch.save(wanted.state_dict(), tmp_path / "w.pth")
    resolved = resolve_network(Network(name="googlenet", weights=str(tmp_path / "w.pth")), 0)
    batch = torch.rand(1, 3, 96, 96)
    with torch.inference_mode():
        torch.testing.assert_close(build_module(resolved)(batch), wanted(batch))


def test_configured_preprocess_wins() -> None:
    values = {"resize": 40, "crop": 32, "mean": [0.1], "std": [0.2]}
    config = Network.model_validate({"name": TINY, "weights": "random", "preprocess": values})
    assert resolve_network(config, 0).preprocess.crop == 32


def old_densenet_name(name: str) -> str:
    return re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name)


def old_transformer_name(name: str) -> str:
    return name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2.")


@pytest.mark.parametrize(
    ("network", "rename"),
    [("densenet121", old_densenet_name), ("vit_b_32", old_transformer_name)],
)
def test_old_published_files_get_the_names_of_today(
    network: str, rename: Callable[[str], str]
) -> None:
    names = skeleton(network)[0].state_dict()
    old = {rename(name): torch.zeros(1) for name in names}
    assert set(old) != set(names)
    assert set(current_names(network, old)) == set(names)


def test_a_network_that_asks_for_its_version_loads() -> None:
    resolved = resolve_network(Network(name="mnasnet0_5", weights="random"), 0)
    module = build_module(resolved)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, resolved.state[name])


def test_a_skeleton_costs_no_memory() -> None:
    module, preprocess = skeleton("regnet_y_400mf")  # computes while it builds
    assert preprocess.crop == 224
    assert all(parameter.is_meta for parameter in module.parameters())


@pytest.mark.parametrize(("size", "crop"), [(None, 224), (40, 40)])
def test_a_skeleton_without_a_preprocess_has_a_stated_size(size: int | None, crop: int) -> None:
    module, preprocess = skeleton(TINY, size=size)
    assert (preprocess.crop, preprocess.channels) == (crop, 3)
    assert trace_layers(module, preprocess).layers[0].height == crop - 2
    assert trace_layers(*skeleton("vit_b_32", size=64)).output == (1000,)
    assert skeleton(f"{__name__}:Grey")[1].channels == 1


def test_a_skeleton_has_the_auxiliary_head_of_published_weights() -> None:
    table = trace_layers(*skeleton("fcn_resnet50", size=64))
    assert table.resolve(["aux_classifier.4"]) == ["aux_classifier.4"]


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code was run",)


def bad_file(tmp_path: Path, kind: str) -> str:
    path = tmp_path / ("w.safetensors" if kind in ("damaged", "nan") else "w.pth")
    state = {key: value.clone() for key, value in Tiny().state_dict().items()}
    if kind == "damaged":
        path.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00not json")
    elif kind == "nan":
        state["second.weight"][0, 0, 0, 0] = float("nan")
        tiny_file(path, state)
    elif kind == "shape":
        torch.save({**state, "second.weight": torch.zeros(2, 4, 5, 5)}, path)
    elif kind == "pickle":
        stream = io.BytesIO()
        pickle.dump(Evil(), stream, protocol=2)
        path.write_bytes(stream.getvalue())
    elif kind == "code":
        torch.save({"state_dict": state, "args": Evil()}, path)
    elif kind == "list":
        torch.save([1, 2], path)
    elif kind == "other":
        torch.save({"w": torch.zeros(1)}, path)
    return str(path)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("missing", "cannot be read"),
        ("damaged", "damaged"),
        ("nan", "NaN or infinity in second.weight"),
        ("shape", r"second.weight \(2, 4, 5, 5\), needs \(2, 4, 3, 3\)"),
        ("pickle", "more than tensors"),
        ("code", "more than tensors"),
        ("list", "hold a list"),
        ("other", "hold nothing of"),
    ],
)
def test_bad_weights_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, text: str
) -> None:
    values = {"resize": 8, "crop": 8}
    with pytest.raises(RefusedError, match=text) as refused:
        resolve(TINY, bad_file(tmp_path, kind), preprocess=values)
    assert "\n" not in str(refused.value)
    assert "code was run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "weights", "text"),
    [
        ("vgg61", "random", "no network 'vgg61'; did you mean vgg1"),
        ("ResNet18", "random", "did you mean resnet18"),
        ("fasterrcnn_resnet50_fpn", "random", "neither classifies nor segments"),
        ("timm:seresnet500", "random", "timm:seresnet500' in timm; did you mean "),
        ("vgg16", "IMAGENET1K_V9", "allowed: IMAGENET1K_V1"),
        ("no.such:thing", "random", "cannot be imported: ModuleNotFoundError"),
        (f"{__name__}:Tinny", "random", "did you mean Tiny"),
        (f"{__name__}:NUMBER", "random", "no callable 'NUMBER'"),
        (f"{__name__}:broken", "random", r"cannot be built: KeyError"),
        ("builtins:dict", "random", "returned a dict"),
        (TINY, "DEFAULT", "set network.weights to a path or URI"),
        ("vgg16", "s4://bucket/w.pth", "cannot be read"),
        ("vgg16", "folder/w.bin", "cannot be read"),
        (f"{__name__}:leaving", "random", "cannot be built: SystemExit: 0"),
        ("tests.network.leaves:Tiny", "random", "cannot be imported: SystemExit: 0"),
    ],
)
def test_wrong_names_are_refused_in_one_line(name: str, weights: str, text: str) -> None:
    with pytest.raises(RefusedError, match=text) as refused:
        resolve(name, weights, preprocess={"resize": 8, "crop": 8})
    assert "\n" not in str(refused.value)


def test_weights_that_state_no_preprocess_ask_for_it(tmp_path: Path) -> None:
    torch.save(Tiny().state_dict(), tmp_path / "w.pth")
    with pytest.raises(RefusedError, match=r"network.preprocess to \{resize, crop"):
        resolve(TINY, tmp_path / "w.pth")
    wrong = tiny_file(tmp_path / "t.safetensors", Tiny().state_dict(), preprocess='{"crop": 0}')
    with pytest.raises(RefusedError, match="metadata 'preprocess' is wrong at resize"):
        resolve(TINY, wrong)
    wrong = tiny_file(tmp_path / "t.safetensors", Tiny().state_dict(), categories='{"a": 1}')
    with pytest.raises(RefusedError, match="not a JSON list"):
        resolve(TINY, wrong)


def test_without_internet_a_download_fails_at_once_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float | None] = []

    def unreachable(request: object) -> object:
        waits.append(socket.getdefaulttimeout())
        raise urllib.error.URLError("no route")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", unreachable)
    with pytest.raises(RefusedError, match=r"place vgg16-397923af\.pth") as refused:
        resolve("vgg16", "DEFAULT")
    assert str(tmp_path) in str(refused.value)
    assert waits == [10.0]
    assert socket.getdefaulttimeout() is None


def test_published_weights_in_the_hub_folder_need_no_download(
    squeezenet: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(squeezenet.state_dict(), folder / "squeezenet1_1-b8a52dc0.pth")
    resolved = resolve_network(Network(name="squeezenet1_1", weights="DEFAULT"), 0)
    assert resolved.weights == "IMAGENET1K_V1"
    assert resolved.categories is not None
    assert resolved.categories[0] == "tench"


def test_shared_weights_load_strictly(shared: Path) -> None:
    for name in ("squeezenet1_0", "squeezenet1_1"):
        state = resolve(name, shared / "weights" / f"{name}.safetensors")
        assert set(state) == set(skeleton(name)[0].state_dict())


def test_a_network_that_exits_while_it_is_traced_is_refused() -> None:
    with pytest.raises(RefusedError, match="does not take 3 channels of 224 x 224 pixels: 0"):
        trace_layers(*skeleton(f"{__name__}:Leaving"))


@pytest.mark.parametrize("name", ["w.th", "w.bin", "w.ckpt", "w.pt", "weights", "w.pth"])
@pytest.mark.parametrize("form", ["archive", "old", "safetensors"])
def test_weights_are_judged_by_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, form: str
) -> None:
    wanted = Tiny()
    if form == "safetensors":
        safetensors.torch.save_file(wanted.state_dict(), tmp_path / name)
    else:
        torch.save(
            wanted.state_dict(),
            tmp_path / name,
            _use_new_zipfile_serialization=form == "archive",
        )
    monkeypatch.chdir(tmp_path)
    values = {"resize": 8, "crop": 8}
    for weights in (tmp_path / name, name):
        state = resolve(TINY, weights, preprocess=values)
        assert torch.equal(state["first.weight"], wanted.first.weight)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "neither safetensors nor a file of torch.save"),
        (b"<!DOCTYPE html>", "neither safetensors nor a file of torch.save"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"PK\x03\x04 of another kind", "save module.state_dict"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(RefusedError, match=text) as refused:
        resolve(TINY, path, preprocess={"resize": 8, "crop": 8})
    assert "w.pth" in str(refused.value)
    assert "\n" not in str(refused.value)


def safetensors_of(dtype: str, num_bytes: int) -> bytes:
    tensor = {"dtype": dtype, "shape": [2], "data_offsets": [0, num_bytes]}
    header = json.dumps({"first.bias": tensor}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(num_bytes)


@pytest.mark.parametrize(
    ("dtype", "num_bytes"), [("F8_E8M0", 2), ("F4", 1), ("F128", 32), ("C64", 16), ("?", 2)]
)
def test_dtypes_that_no_network_takes_are_refused(
    tmp_path: Path, dtype: str, num_bytes: int
) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(safetensors_of(dtype, num_bytes))
    with pytest.raises(RefusedError, match=r"w\.safetensors.*save") as refused:
        resolve(TINY, path, preprocess={"resize": 8, "crop": 8})
    assert "\n" not in str(refused.value)


def test_float8_weights_load_as_the_networks_dtype(tmp_path: Path) -> None:
    state = {key: value.to(torch.float8_e4m3fn) for key, value in Tiny().state_dict().items()}
    loaded = resolve(TINY, tiny_file(tmp_path / "w.safetensors", state))
    assert loaded["first.weight"].dtype == torch.float32
    assert torch.equal(loaded["first.weight"], state["first.weight"].float())


def test_tensors_without_dense_values_are_refused(tmp_path: Path) -> None:
    for odd in (torch.zeros(4, device="meta"), torch.zeros(4).to_sparse(), torch.zeros(4) * 1j):
        torch.save({"first.bias": odd}, tmp_path / "w.pth")
        with pytest.raises(RefusedError, match=r"w\.pth"):
            resolve(TINY, tmp_path / "w.pth", preprocess={"resize": 8, "crop": 8})


@pytest.mark.parametrize("form", ["archive", "old", "safetensors"])
def test_damaged_weights_load_or_are_refused_in_one_line(tmp_path: Path, form: str) -> None:
    path = tmp_path / "w.pth"
    if form == "safetensors":
        safetensors.torch.save_file(Tiny().state_dict(), path)
    else:
        torch.save(Tiny().state_dict(), path, _use_new_zipfile_serialization=form == "archive")
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    refusals = 0
    for _ in range(300):
        content = bytearray(whole)
        for position in random.integers(0, len(whole), random.integers(1, 4)):
            content[position] = random.integers(0, 256)
        cut = len(whole) if random.random() < 0.8 else int(random.integers(0, len(whole)))
        path.write_bytes(bytes(content[:cut]))
        try:
            resolve(TINY, path, preprocess={"resize": 8, "crop": 8})
        except RefusedError as refusal:
            refusals += 1
            assert "\n" not in str(refusal)
            assert "w.pth" in str(refusal)
    assert refusals > 50


def test_where_a_preprocess_comes_from_is_said(
    squeezenet: nn.Module, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    torch.save(squeezenet.state_dict(), tmp_path / "w.pth")
    values = {"resize": 8, "crop": 8}
    stated = tiny_file(tmp_path / "t.safetensors", Tiny().state_dict())
    for config, origin in (
        ({"name": "squeezenet1_1", "weights": str(tmp_path / "w.pth")}, "IMAGENET1K_V1, since"),
        ({"name": TINY, "weights": "random", "preprocess": values}, "network.preprocess"),
        ({"name": TINY, "weights": stated}, "metadata of the weights file"),
        ({"name": "timm:test_resnet", "weights": "random"}, "timm:test_resnet states"),
    ):
        caplog.clear()
        resolved = resolve_network(Network.model_validate(config), 0)
        assert origin in resolved.preprocess_origin
        assert resolved.preprocess_origin in caplog.text
        assert f"crop {resolved.preprocess.crop}" in caplog.text


def test_the_classes_of_imagenet_have_wordnet_ids() -> None:
    categories = published_categories(models.ResNet50_Weights.DEFAULT)
    ids = wordnet_ids(categories)
    assert ids is not None
    assert (categories[0], ids[0]) == ("tench", "n01440764")
    assert (categories[281], ids[281]) == ("tabby", "n02123045")
    assert ids == tuple(sorted(set(ids)))
    assert wordnet_ids(categories[:10]) is None
