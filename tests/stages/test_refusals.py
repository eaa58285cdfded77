"""A refused invocation changes no byte of the run, and says all reasons at once, one per line."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from cnnvis_ray import cli
from cnnvis_ray.errors import RefusedError
from tests.stages.conftest import without_ray, write_photos
from tests.stages.tiny import contents, go


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with photos and a finished run of all stages."""
    with pytest.MonkeyPatch.context() as patch:
        without_ray(patch)
        folder = tmp_path_factory.mktemp("refusals")
        write_photos(folder / "photos", 12)
        go(folder)
        yield folder


def refusal(folder: Path, verb: str, sets: Sequence[str], replace: Sequence[str] = ()) -> str:
    """Return why an invocation is refused, after looking that it changed nothing."""
    before = contents(folder / "run")
    with pytest.raises(RefusedError) as refused:
        go(folder, *sets, verb=verb, replace=replace)
    assert contents(folder / "run") == before
    return str(refused.value)


@pytest.mark.parametrize(
    ("verb", "setting", "part"),
    [
        ("run", "extract.pooling=max", "extract.pooling was mean, is max"),
        ("run", "extract.dtype=float32", "extract.dtype was float16, is float32"),
        ("run", "extract.pooling=squash", "squash"),
        ("run", "images.unit_size=4", "images.unit_size was 8, is 4"),
        ("run", "images.max_pixels=5000", "images.max_pixels was 100000000, is 5000"),
        ("run", "images.thumbnail=16", "images.thumbnail was 128, is 16"),
        ("run", "images.source=nowhere", "nowhere"),
        ("run", "reduce.perplexity=5", "reduce.perplexity was 30"),
        ("run", "reduce.layers=[features.7]", "features.7"),
        ("run", "maximize.steps=3", "maximize.steps was 2, is 3"),
        ("run", "maximize.channels=[99]", "features.0 has channels 0 to 7"),
        ("run", "maximize.objective=beauty", "beauty"),
        ("run", "mosaic.background=blurple", "blurple"),
        ("run", "mosaic.layouts=[griid]", "grid"),
        ("run", "layers=[features.99]", "features.99"),
        ("run", "seed=1", "use another run_dir"),
        ("run", "images.limit=3", "at least 5 images, there are 3"),
        ("extract", "images.unit_size=4", "--replace images"),
        ("maximize", "maximize.steps=3", "--replace maximize"),
        ("reduce", "reduce.iterations=21", "--replace reduce"),
    ],
)
def test_nothing_is_written(whole: Path, verb: str, setting: str, part: str) -> None:
    told = refusal(whole, verb, [setting])
    assert part in told
    assert "Error" not in told


@pytest.mark.parametrize(
    ("verb", "stage", "setting", "part"),
    [
        ("run", "images", "cluster.workers=64", "do not fit"),
        ("run", "extract", "cluster.workers=64", "do not fit"),
        ("extract", "extract", "cluster.gpus_per_worker=1", "no node has them"),
        ("extract", "images", "cluster.gpus_per_worker=1", "no node has them"),
        ("maximize", "maximize", "cluster.workers=64", "do not fit"),
        ("maximize", "maximize", "cluster.gpus_per_worker=1", "no node has them"),
        ("run", "reduce", "mosaic.background=blurple", "blurple"),
        ("run", "extract", "maximize.steps=3", "maximize.steps was 2"),
    ],
)
def test_what_is_replaced_stays_until_the_work_can_be_done(
    whole: Path, verb: str, stage: str, setting: str, part: str
) -> None:
    assert part in refusal(whole, verb, [setting], [stage])


def test_another_unit_size_is_not_begun_where_the_workers_do_not_fit(whole: Path) -> None:
    sets = ["images.unit_size=4", "cluster.workers=64"]
    assert "do not fit" in refusal(whole, "run", sets, ["images"])


def test_all_stages_refuse_at_once_a_line_each(whole: Path) -> None:
    sets = ["extract.pooling=max", "maximize.steps=3", "mosaic.background=blurple"]
    told = refusal(whole, "run", [*sets, "images.limit=3"]).splitlines()
    parts = ("extract.pooling", "at least 5 images", "blurple", "maximize.steps")
    for part in parts:
        assert sum(part in line for line in told) >= 1, (part, told)
    assert len(told) == len(set(told)) >= len(parts)


def test_the_command_says_each_refusal_and_forgets_the_settings(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(whole / "run")
    sets = ["--set", "reduce={layers: [features.0], perplexity: 5}", "--set", "maximize.steps=3"]
    maximize = ["--set", "maximize.layers=[features.1]"]
    assert cli.main(["run", str(whole / "run"), "--keep", *sets, *maximize]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    refused = [line for line in told if line.startswith("cnnvis: ")]
    assert len(refused) == 2, told
    assert not any("Traceback" in line for line in told)
    assert contents(whole / "run") == before
    assert cli.main(["run", str(whole / "run")]) == 0
