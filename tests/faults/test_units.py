"""What a worker does about one image that crashes it, and about a GPU that is too small."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cnnvis_ray.cluster import bisection
from cnnvis_ray.cluster.bisection import Queued
from cnnvis_ray.extraction import Extractor, ImageDivider
from cnnvis_ray.ledger import Run
from cnnvis_ray.stages.extract import decide
from cnnvis_ray.stages.job import open_job
from tests.extraction.conftest import configure, extract_here, write_images


def test_out_of_memory_halves_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "photos", 45)
    whole = Run(extract_here(configure(tmp_path))[0].store)
    met: list[int] = []
    plain = Extractor.network_input

    def small(self: Extractor, batch: object) -> torch.Tensor:
        pixels = plain(self, batch)  # type: ignore[arg-type]
        met.append(len(pixels))
        if len(pixels) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
        return pixels

    monkeypatch.setattr(Extractor, "network_input", small)
    halved = Run(extract_here(configure(tmp_path, f"run_dir={tmp_path / 'halved'}"))[0].store)
    assert met[:3] == [8, 4, 2]
    assert set(met[3:]) == {2}
    for layer in ("features.0", "features.5"):
        (keys, features), (other_keys, other) = whole.features(layer), halved.features(layer)
        assert keys == other_keys
        assert np.abs(features - other).max() <= 1e-3 * np.abs(features).max()


def test_one_image_that_does_not_fit_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "photos", 3)

    def never(self: Extractor, batch: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory (simulated)")

    monkeypatch.setattr(Extractor, "network_input", never)
    with pytest.raises(torch.OutOfMemoryError):
        extract_here(configure(tmp_path))


def test_a_probe_commits_nothing_and_a_crashed_image_is_a_reject(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 20)
    config = configure(tmp_path)
    whole = Run(extract_here(config)[0].store)
    job = open_job(configure(tmp_path, f"run_dir={tmp_path / 'crashed'}"), ("extract",))
    work = decide(job)
    job.write()
    work.open()
    (task,) = work.tasks()
    worker = Extractor(work.units.setup, "cpu", 1)
    probes = ImageDivider().probes(task)
    assert [sorted(probe.only or ()) for probe in probes] == [[*range(10)], [*range(10, 20)]]
    worker(probes[0])
    assert job.store.names("features") == []
    culprit = replace(task, only=frozenset({7}))
    assert ImageDivider().probes(culprit) == []
    worker(ImageDivider().without(task, [culprit]))
    run = Run(job.store)
    (reject,) = run.rejects().to_pylist()
    assert (reject["stage"], reject["image_id"]) == ("worker", 7)
    (keys, features), (other_keys, other) = (
        whole.features("features.5"),
        run.features("features.5"),
    )
    assert other_keys == [key for key in keys if key != reject["key"]]
    np.testing.assert_array_equal(np.delete(features, 7, axis=0), other)


class Numbers:
    """Divides tuples of numbers."""

    def probes(self, task: tuple[int, ...]) -> list[tuple[int, ...]]:
        middle = len(task) // 2
        return [] if len(task) < 2 else [task[:middle], task[middle:]]

    def without(
        self, task: tuple[int, ...], culprits: Sequence[tuple[int, ...]]
    ) -> tuple[int, ...]:
        return tuple(number for number in task if (number,) not in culprits)


@pytest.mark.parametrize("guilty", [{3}, {0, 6}, set(range(7)), set()])
def test_bisection_finds_exactly_the_guilty(guilty: set[int]) -> None:
    divider, task = Numbers(), tuple(range(7))
    waiting = bisection.begin(divider, Queued(task, 1, True))
    search = waiting[0].search
    assert search is not None
    while waiting:
        probe = waiting.pop()
        assert probe.suspect
        if guilty & set(probe.task):
            waiting.extend(bisection.narrow(divider, probe, max_attempts=3))
        else:
            search.pending -= 1
    assert search.pending == 0
    ended = bisection.end(divider, search)
    assert set(ended.task) == set(task) - guilty
    assert ended.attempts == (0 if guilty else 2)
