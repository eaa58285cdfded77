"""What an extraction will cost, before anything is queued."""

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from cnnvis_ray.cluster import Offer, Placement
from cnnvis_ray.cluster.nodes import alive_offers
from cnnvis_ray.config import Config
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.ledger import open_run
from cnnvis_ray.stages.plan import check_memory, plan
from cnnvis_ray.stages.run import run_verb
from tests.stages.conftest import write_photos


def test_it_says_what_the_run_will_write(
    tmp_path: Path, configured: Callable[..., Config], ray_cluster: None
) -> None:
    write_photos(tmp_path / "photos", 40)
    told = "\n".join(plan(configured()))
    assert "40 in 3 units; done: 0" in told
    assert not (tmp_path / "run").exists()
    for part in ("features/features.0", "channels/features.5", "images/s x 1 workers", "a worker"):
        assert part in told
    run_verb("extract", configured(), ())
    run = open_run(str(tmp_path / "run"))
    others = ("plan/", "passes/statistics-", "passes/labels-")  # of the whole run
    objects = [f for f in run.store.files("") if "/00000" in f and not f.startswith(others)]
    assert f"{len(objects)} files" in told
    assert "done: 3" in "\n".join(plan(configured()))


def write_million(path: Path, side: int) -> None:
    """Write an HDF5 file of a million images whose chunks were never written."""
    with h5py.File(path, "w") as file:
        shape = (1_000_000, side, side, 3)
        file.create_dataset("imgBrick", shape, "uint8", chunks=(64, side, side, 3))


def test_it_refuses_what_cannot_fit_and_names_what_would(
    tmp_path: Path, configured: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_million(tmp_path / "million.h5", 64)
    usage = shutil.disk_usage(tmp_path)._replace(free=10**11)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    sets = (f"images.source={tmp_path / 'million.h5'}", "extract.pooling=flatten")
    with pytest.raises(RefusedError, match=r"1,000,000 images .* up to 12\d\.\d GB") as refused:
        plan(configured(*sets, "layers=[features.0]"))
    assert "most of it features/features.0" in str(refused.value)
    assert "mean takes 128.0 MB, sketch:256 takes 512.0 MB" in str(refused.value)
    assert "100.0 GB free" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_flattened_conv1_1_of_a_million_images_is_refused(
    tmp_path: Path, configured: Callable[..., Config]
) -> None:
    write_million(tmp_path / "million.h5", 256)
    network = "network={name: vgg16, weights: random}"
    sets = (f"images.source={tmp_path / 'million.h5'}", "extract.pooling=flatten", network)
    with pytest.raises(RefusedError, match=r"up to 6\.\d TB, most of it features/features\.0"):
        plan(configured(*sets, "layers=[features.0]"))


def test_it_refuses_workers_that_have_no_memory(configured: Callable[..., Config]) -> None:
    config = configured("cluster={workers: 6, cpus_per_worker: 1, gpus_per_worker: 0}")
    offers = [Offer(4, 0), Offer(2, 0, 3e9)]
    check_memory(config, offers, Placement(6, 0, 1), 10**9, 10**6)
    with pytest.raises(RefusedError, match=r"2 workers of 2\.0 GB .* into the 3\.0 GB"):
        check_memory(config, offers, Placement(6, 0, 1), 2 * 10**9, 10**6)
    with pytest.raises(RefusedError, match=r"the driver needs 1,000\.0 TB"):
        check_memory(config, offers, Placement(6, 0, 1), 10**9, 10**15)


def test_a_node_says_what_memory_it_has(ray_cluster: None) -> None:
    (offer,) = alive_offers()
    assert 10**8 < offer.memory < 10**14
