"""Weights of every form reach the network, or are refused in one line that helps."""

import io
import json
import pickle
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torchvision import models

from cnnvis_ray.config import Network
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.network import build_module, resolve_network, skeleton
from cnnvis_ray.network.loading.resolve import current_names

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
    with pytest.raises(RefusedError, match="states no preprocess"):
        skeleton(TINY)


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
        ("list", "hold list"),
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
        ("vgg61", "random", "no network 'vgg61'; near: vgg1"),
        ("ResNet18", "random", "near: resnet18"),
        ("fasterrcnn_resnet50_fpn", "random", "neither classifies nor segments"),
        ("timm:seresnet500", "random", "timm:seresnet500' in timm; near: "),
        ("vgg16", "IMAGENET1K_V9", "allowed: IMAGENET1K_V1"),
        ("no.such:thing", "random", "cannot be imported: ModuleNotFoundError"),
        (f"{__name__}:Tinny", "random", "near: Tiny"),
        (f"{__name__}:NUMBER", "random", "no callable 'NUMBER'"),
        (f"{__name__}:broken", "random", r"cannot be built: KeyError"),
        ("builtins:dict", "random", "gave dict"),
        (TINY, "DEFAULT", "give a path or URI"),
        ("vgg16", "s4://bucket/w.pth", "cannot be read"),
        ("vgg16", "folder/w.bin", "allowed are .safetensors"),
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
    with pytest.raises(RefusedError, match="no JSON list"):
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
