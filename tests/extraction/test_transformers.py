"""A vision transformer's run: tokens in a grid, and no mixing with runs of one column."""

from pathlib import Path

import pytest

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.ledger import Run
from cnnvis_ray.stages import extract as extract_stage
from cnnvis_ray.stages.extract import merge_statistics
from tests.extraction.conftest import Extract, configure, extract_here, write_images

pytestmark = pytest.mark.slow

NETWORK = (
    "network={name: 'tests.network.transformers:tiny', weights: random}",
    "layers=[blocks.1]",
)


def test_features_statistics_and_exemplars_are_of_the_grid(
    tmp_path: Path, extract: Extract
) -> None:
    write_images(tmp_path / "photos", 6)
    job = extract(*NETWORK)
    merge_statistics(job.ledger, "blocks.1", 9)
    run = Run(job.store)
    keys, features = run.features("blocks.1")
    assert (len(keys), features.shape) == (6, (6, 12))
    table = run.statistics("blocks.1")
    best = [entry for entries in table["exemplars"].to_pylist() for entry in entries]
    assert {0, 1, 2, 3} == {entry["y"] for entry in best} == {entry["x"] for entry in best}


def test_a_run_with_tokens_in_one_column_is_refused_not_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "photos", 3)
    config = configure(tmp_path, *NETWORK)
    with monkeypatch.context() as before:
        before.setattr(extract_stage, "tokens_recipe", lambda job: {})
        extract_here(config)
    with pytest.raises(RefusedError, match=r"network\.tokens"):
        extract_here(config)


def test_recipes_of_other_networks_are_as_they_were(tmp_path: Path, extract: Extract) -> None:
    write_images(tmp_path / "photos", 3)
    job = extract("layers=[features.0]")
    for owner in job.ledger.passes("extract"):
        assert not [key for key in owner.recipe if "tokens" in key]
