"""What a report's files hold: sizes, texts as texts, the same twice, only what is due."""

import base64
import json
import re
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.ledger import Marker, open_run
from cnnvis_ray.ledger.passes import commit
from cnnvis_ray.report import Maker, Options, Part, write_report
from cnnvis_ray.report.catalogue import choose, read_catalogue
from cnnvis_ray.report.layers import Responses, channel_values
from cnnvis_ray.report.maps import find_regions, quantize, represent
from cnnvis_ray.report.pieces import slug
from cnnvis_ray.storage import ShardFile, write_table
from tests.report.made_runs import CHANNELS, HOSTILE, LAYERS, MadeRun, whole_run

OWN_CODE = 82_500  # bytes of scripts, styles and the page
APP = files("cnnvis_ray.report") / "app"


def piece(folder: Path, name: str) -> object:
    """Read a data file as a browser does."""
    text = (folder / "report" / "data" / f"{name}.js").read_text()
    found = re.fullmatch(r"piece\((\"[^\"]*\"),(.*)\);\n", text, re.DOTALL)
    assert found is not None
    assert json.loads(found[1]) == name
    return json.loads(found[2])


def contents(folder: Path) -> dict[str, bytes]:
    """Read every file of a report but the record."""
    root = folder / "report"
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "made.json"
    }


def test_every_part_of_a_whole_run_is_there(tmp_path: Path) -> None:
    whole_run(tmp_path)
    written = write_report(str(tmp_path))
    assert written.made == written.parts
    run = piece(tmp_path, "run")
    assert isinstance(run, dict)
    assert (run["images"], run["rejects"], run["labelled"]) == (40, 1, 40)
    by_name = {layer["name"]: layer for layer in run["layers"]}
    assert by_name["block2"]["pictures"] == CHANNELS
    assert by_name["block1"]["pictures"] == 0
    assert all(by_name[layer]["map"] and by_name[layer]["neighbours"] for layer in LAYERS)
    assert written.bytes == sum(len(data) for data in contents(tmp_path).values())


def test_data_is_ascii_so_that_no_text_ends_a_script(tmp_path: Path) -> None:
    whole_run(tmp_path)
    write_report(str(tmp_path))
    for name, data in contents(tmp_path).items():
        if name.startswith("data/"):
            assert data.isascii()
            assert data.count(b"\n") == 1
            assert b"\0" not in data
    rows = piece(tmp_path, "images/000000")
    assert isinstance(rows, dict)
    assert sorted(rows["classes"]) == sorted(HOSTILE)
    keys = piece(tmp_path, "keys/000000")
    assert keys == [f"{name}/{number}.jpg" for number, name in enumerate(HOSTILE)]


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        whole_run(tmp_path / name)
        write_report(str(tmp_path / name))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_writing_again_writes_only_what_changed(tmp_path: Path) -> None:
    run = whole_run(tmp_path)
    first = write_report(str(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "report").rglob("*.jpg")}
    assert write_report(str(tmp_path)).made == 0
    run.add_pictures("block1", [0, 1])
    again = write_report(str(tmp_path))
    assert again.made == 1
    assert again.parts == first.parts
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "report").rglob("*.jpg")}
    fresh = {
        path.relative_to(tmp_path / "report" / "sheets")
        for path in after
        if before.get(path) != after[path]
    }
    assert {str(path) for path in fresh} == {"pictures/block1.jpg"}


def test_added_units_leave_the_files_of_earlier_units_alone(tmp_path: Path) -> None:
    run = MadeRun(tmp_path, HOSTILE)
    run.add_images(2)
    write_report(str(tmp_path))
    before = contents(tmp_path)
    run.add_images(1)
    written = write_report(str(tmp_path))
    assert written.made == 1
    changed = {name for name, data in contents(tmp_path).items() if before.get(name) != data}
    of_unit = {"data/images/000002.js", "data/keys/000002.js"}
    of_unit |= {"sheets/images/000002.jpg", "sheets/large/000002.jpg"}
    assert changed == of_unit | {"data/run.js", "data/columns.js"}


def test_a_killed_report_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cnnvis_ray.report.site.RECORD_SECONDS", -1.0)
    whole_run(tmp_path / "cut")

    def three_parts(maker: Maker, parts: list[Part]) -> Iterator[tuple[Part, list[ShardFile]]]:
        for number, part in enumerate(parts):
            if number == 3:
                raise KeyboardInterrupt
            yield maker(part)

    with pytest.raises(KeyboardInterrupt):
        write_report(str(tmp_path / "cut"), map_parts=three_parts)
    rest = write_report(str(tmp_path / "cut"))
    assert rest.made == rest.parts - 3
    whole_run(tmp_path / "whole")
    write_report(str(tmp_path / "whole"))
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_files_of_what_is_gone_are_deleted(tmp_path: Path) -> None:
    whole_run(tmp_path)
    write_report(str(tmp_path))
    (tmp_path / "embedding" / "block1.parquet").unlink()
    (tmp_path / "report" / "data" / "old.js").write_text("piece()")
    write_report(str(tmp_path))
    assert not (tmp_path / "report" / "data" / "map" / "block1.js").exists()
    assert not (tmp_path / "report" / "data" / "old.js").exists()
    run = piece(tmp_path, "run")
    assert isinstance(run, dict)
    assert [layer["map"] for layer in run["layers"]] == [False, True]


@pytest.mark.parametrize("lacking", ["labels", "predictions", "channels", "everything"])
def test_a_run_may_lack_anything(tmp_path: Path, lacking: str) -> None:
    named = lacking not in ("labels", "everything")
    run = MadeRun(tmp_path, HOSTILE if named else [None])
    run.add_images(2, predictions=lacking not in ("predictions", "everything"), rejects=False)
    if lacking != "everything":
        run.add_features("block1")
        run.add_map("block1")
    if lacking in ("labels", "predictions"):
        run.add_channels("block1")
    write_report(str(tmp_path))
    found = piece(tmp_path, "run")
    assert isinstance(found, dict)
    assert found["images"] == 16
    assert (found["labelled"] > 0) == (lacking not in ("labels", "everything"))
    assert not (tmp_path / "report" / "data" / "rejects.js").exists()


def test_sizes_an_image(tmp_path: Path) -> None:
    run = MadeRun(tmp_path, [f"class {number}" for number in range(40)], per_unit=1024)
    run.add_images(2)
    run.add_features("block1")
    run.add_map("block1")
    write_report(str(tmp_path))
    images = 2 * 1024
    words = piece(tmp_path, "map/block1")
    assert isinstance(words, dict)
    columns = (tmp_path / "report" / "data" / "columns.js").stat().st_size
    assert (len(words["xy"]) + columns / 2) / images <= 7  # a map's share: positions and a class
    sheets = sum(path.stat().st_size for path in (tmp_path / "report/sheets/images").iterdir())
    assert sheets / images <= 900
    with Image.open(tmp_path / "report/sheets/images/000000.jpg") as sheet:
        assert sheet.size == (2048, 2048)


def test_max_images_takes_evenly_by_label() -> None:
    labels: list[str | None] = [*["many"] * 90, *["few"] * 3, *["some"] * 20]
    kept = choose(labels, 30)
    assert Counter(labels[place] for place in kept) == {"few": 3, "some": 13, "many": 14}
    assert choose(labels, 500).tolist() == list(range(len(labels)))


def test_max_images_shows_the_chosen_everywhere(tmp_path: Path) -> None:
    run = whole_run(tmp_path)
    write_report(str(tmp_path), Options(max_images=16))
    found = piece(tmp_path, "run")
    assert isinstance(found, dict)
    assert (found["images"], found["total"]) == (16, len(run.ids))
    assert sum(rows for _, rows in found["units"]) == 16
    words = piece(tmp_path, "map/block2")
    assert isinstance(words, dict)
    assert words["count"] == 16
    near = piece(tmp_path, "neighbours/block2/000000")
    assert isinstance(near, dict)
    indices = np.frombuffer(base64.b64decode(near["images"]), "<i4")
    assert indices.max() < 16


def test_labels_are_the_present_ones(tmp_path: Path) -> None:
    run = MadeRun(tmp_path, ["old"])
    run.add_images(1)
    table = pa.table({"image_id": run.ids, "label": ["new"] * len(run.ids)})
    write_table(run.store, "labels.parquet", table)
    write_report(str(tmp_path))
    rows = piece(tmp_path, "images/000000")
    assert isinstance(rows, dict)
    assert rows["classes"] == ["new"]


def test_positions_keep_the_maps_proportions() -> None:
    grid, step = quantize(np.array([[0.0, 0.0], [10.0, 5.0]]))
    assert grid[:, 0].tolist() == [0, 65535]
    assert abs(int(grid[1, 1]) - int(grid[0, 1]) - 32768) <= 1
    assert step == pytest.approx(10 / 65535)


def test_regions_are_named_by_what_is_rare_elsewhere() -> None:
    generator = np.random.default_rng(0)
    corner = np.repeat(np.array([[0, 0], [60000, 0], [0, 60000], [60000, 60000]]), 50, axis=0)
    grid = (corner + generator.integers(0, 3000, corner.shape)).astype(np.uint16)
    words = np.repeat([0, 1, 2, 3], 50)
    words[::3] = 4  # a word that is everywhere names nothing first
    rows = find_regions(grid, words.astype(np.int32), ["a", "b", "c", "d", "every"])
    best = [row[4] for row in rows if row[0] == 0]
    assert {words[0] for words in best if isinstance(words, list)} == {"a", "b", "c", "d"}


def test_a_cells_representative_is_nearest_to_its_middle() -> None:
    grid = np.array([[0, 0], [100, 100], [210, 190], [60000, 60000]], np.uint16)
    assert sorted(represent(grid, 24).tolist()) == [1, 3]


def test_channels_answer_alike_and_to_classes() -> None:
    values = np.array([[1.0, 2.0, 0.0], [2.0, 4.0, 0.0], [3.0, 6.0, 0.0]])
    by_class = np.array([[3.0, 6.0, 0.0], [3.0, 6.0, 0.0]])
    images = np.array([2, 1])
    found = Responses(3, values.sum(axis=0), values.T @ values, by_class, images)
    assert found.similarity()[0, 1] == pytest.approx(1)
    assert found.similarity()[0, 2] == 0
    spread = np.sqrt(2 / 3)
    assert found.scores()[:, 0] == pytest.approx([-0.5 / spread, 1 / spread])


def test_features_of_places_become_channels() -> None:
    features = np.arange(8, dtype=np.float32)[None]
    values = channel_values(features, "flatten", [2, 2, 2])
    assert values is not None
    assert values.tolist() == [[1.5, 5.5]]
    assert channel_values(features, "sketch:8", [2, 2, 2]) is None


def test_file_names_are_harmless() -> None:
    assert slug("features.12") == "features.12"
    assert slug("../x") != "../x"
    assert "/" not in slug("../x")
    assert slug("a b") != slug("a_b")
    assert slug("é" * 300) == slug("é" * 300)


def test_a_run_without_images_is_refused(tmp_path: Path) -> None:
    run = MadeRun(tmp_path, ["a"])
    with pytest.raises(RefusedError):
        write_report(str(tmp_path))
    owner = run.open_pass("images")
    commit(run.store, owner, Marker("000000.r0", ()))
    with pytest.raises(RefusedError):
        read_catalogue(open_run(str(tmp_path)))


def test_own_code_is_small_and_in_short_files() -> None:
    own = [path for path in APP.iterdir() if path.name.endswith((".js", ".css", ".html"))]
    own = [path for path in own if "openseadragon" not in path.name]
    assert sum(len(path.read_bytes()) for path in own) <= OWN_CODE
    assert max(len(path.read_text().splitlines()) for path in own) <= 250


def test_another_runs_map_holds_the_images_of_both_by_key(tmp_path: Path) -> None:
    run = MadeRun(tmp_path / "run", HOSTILE)
    run.add_images(3)
    other = MadeRun(tmp_path / "other", HOSTILE)
    other.add_images(2)
    for made in (run, other):
        made.add_features("block1")
        made.add_map("block1")
    write_report(str(tmp_path / "run"), Options(compare=str(tmp_path / "other")))
    found = piece(tmp_path / "run", "run")
    assert isinstance(found, dict)
    (side,) = found["others"]
    assert side["name"] == "block1 in other"
    value = piece(tmp_path / "run", f"map/{side['file']}")
    assert isinstance(value, dict)
    assert np.frombuffer(base64.b64decode(value["ids"]), "<u4").tolist() == list(range(16))
    write_report(str(tmp_path / "run"))
    assert not (tmp_path / "run" / "report" / "data" / "map" / f"{side['file']}.js").exists()


def test_a_night_is_shown_as_far_as_it_says(tmp_path: Path) -> None:
    run = MadeRun(tmp_path, HOSTILE)
    run.add_images(2)
    run.add_night("n2", "block1")
    run.store.write("placed/empty/changes.json", b"{}")
    MadeRun(tmp_path / "placed" / "empty", HOSTILE).add_images(1)
    write_report(str(tmp_path))
    found = piece(tmp_path, "run")
    assert isinstance(found, dict)
    assert [(night["verdict"], night["score"]) for night in found["nights"]] == [
        ("not judged", None),
        ("changed", 3.0),
    ]
    value = piece(tmp_path, "night/n2")
    assert isinstance(value, dict)
    assert [row["channel"] for row in value["channels"]] == [0, 1, 2]
    assert [row[0] >= 0 for row in value["strangest"]] == [True, False]
    assert (tmp_path / "report" / "sheets" / "night" / "n2.jpg").exists()


def test_findings_of_an_audit_name_shown_images(tmp_path: Path) -> None:
    run = MadeRun(tmp_path, HOSTILE)
    run.add_images(2)
    run.add_audit("block1")
    write_report(str(tmp_path))
    value = piece(tmp_path, "audit")
    assert isinstance(value, dict)
    assert [row["images"] for group in value["groups"] for row in group["rows"]] == [[0, 1], [2]]


def test_the_policy_and_the_scripts_of_the_page() -> None:
    page = (APP / "index.html").read_text()
    policy = "default-src 'none'; script-src 'self'; img-src 'self' data:; style-src 'self'"
    assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in page
    named = re.findall(r'<script src="app/([^"]+)"></script>', page)
    own = {path.name for path in APP.iterdir() if path.name.endswith(".js")}
    assert set(named) == own - {"openseadragon.min.js"}
    assert len(named) == len(set(named))
    for name in named:
        text = (APP / name).read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b", text)
        assert not re.search(
            r"\bfetch\(|XMLHttpRequest|new Worker|import\(|https?://(?!www\.w3)", text
        )
    assert (APP / "openseadragon-LICENSE.txt").read_text().startswith("Copyright")
