import json

import numpy as np
import pytest

from cnnvis_ray.monitoring import (
    collect_trends,
    compare_cells,
    compare_classes,
    compare_confidence,
    draw_strangest,
    draw_trends,
    expected_new_tops,
    find_new_tops,
    find_novelty,
    novelty_fields,
)


def test_novel_share_by_hand() -> None:
    found = find_novelty(np.arange(1.0, 101.0), np.array([5.0, 99.0, 50.0, 120.0]))
    assert found is not None
    assert found.limit == pytest.approx(95.05)
    assert found.share == 0.5 and found.strangest == (3, 1, 2, 0)
    assert found.p_value == pytest.approx(1 - 0.95**4 - 4 * 0.05 * 0.95**3)


def test_a_night_of_nothing_is_not_novel() -> None:
    assert find_novelty(np.ones(5), np.empty(0)) is None
    assert find_novelty(np.empty(0), np.ones(5)) is None


def test_equal_distances_are_not_novel() -> None:
    found = find_novelty(np.ones(50), np.ones(10))
    assert found is not None and found.share == 0


def test_classes_against_the_reference() -> None:
    before = ["cat"] * 300 + ["dog"] * 300
    same = compare_classes(before, ["cat"] * 50 + ["dog"] * 50)
    other = compare_classes(before, ["cat"] * 80 + ["dog"] * 20)
    assert same is not None and same.p_value == pytest.approx(1)
    assert other is not None and other.p_value is not None and other.p_value < 1e-6
    assert other.counts == {"cat": (80, 50.0), "dog": (20, 50.0)}


def test_labels_never_seen_are_listed_and_few_images_are_not_judged() -> None:
    found = compare_classes(["cat", "dog"], ["cat", "emu", None])
    assert found is not None
    assert found.unknown == {"emu": 1}
    assert found.p_value is None
    assert compare_classes(["cat"], [None, None]) is None
    assert compare_classes([None], ["cat"]) is None
    only_new = compare_classes(["cat"] * 50, ["emu"] * 20)
    assert only_new is not None and only_new.p_value is None and only_new.unknown == {"emu": 20}


def test_confidence_that_falls_is_told() -> None:
    found = compare_confidence(np.linspace(0.5, 1, 200), np.linspace(0, 0.5, 50))
    assert found is not None and found["p_value"] < 1e-6
    assert found["median"] == pytest.approx(0.25)
    assert compare_confidence(np.empty(0), np.ones(3)) is None


def test_a_cell_that_grew_and_one_that_emptied() -> None:
    grid = np.stack(np.meshgrid(np.arange(20.0), np.arange(20.0)), axis=-1).reshape(-1, 2)
    reference = np.repeat(grid, 5, axis=0)
    cells = compare_cells(reference, np.tile([[0.0, 19.0]], (40, 1)))
    assert [(cell.row, cell.column, cell.images) for cell in cells] == [(0, 0, 40)]
    assert cells[0].expected == pytest.approx(0.1)
    heavy = np.concatenate([reference, np.tile([[19.0, 0.0]], (2000, 1))])
    emptied = compare_cells(heavy, np.repeat(grid, 1, axis=0))
    assert (emptied[0].row, emptied[0].column, emptied[0].images) == (19, 19, 1)


def test_cells_of_a_night_like_the_reference_stay() -> None:
    rng = np.random.default_rng(0)
    assert compare_cells(rng.normal(size=(3000, 2)), rng.normal(size=(300, 2))) == ()
    assert compare_cells(np.zeros((3, 2)), np.empty((0, 2))) == ()
    assert compare_cells(np.zeros((30, 2)), np.zeros((30, 2))) == ()


def test_new_tops_by_relative_excess() -> None:
    before = np.array([1.0, 10.0, -np.inf, 2.0])
    tops = find_new_tops("late", before, np.array([2.0, 11.0, 5.0, 1.0]), [4, 0, 1, 2])
    assert [(top.channel, top.image) for top in tops] == [(0, 4), (1, 0)]
    assert expected_new_tops(100, 900, 100) == pytest.approx(10)


def test_trends_of_nights_with_gaps() -> None:
    nights: list[dict[str, object]] = [
        {"novelty": {"share": 0.1}, "layers": [{"layer": "a", "score": 6.0}]},
        {
            "novelty": None,
            "score": None,
            "layers": [],
            "arrived": {"images": 6, "rejects": 2},
            "duplicates": {"images": 3},
        },
        {
            "smallest_change": 0.2,
            "score": 4.0,
            "threshold": 2.0,
            "layers": [{"layer": "b", "score": 3.0}],
            "predictions": {"confidence": {"median": 0.7}},
        },
    ]
    trends = collect_trends(nights)
    assert trends == {
        "score": [None, None, 2.0],
        "novel share": [0.1, None, None],
        "smallest change": [None, None, 0.2],
        "rejected share": [None, 0.25, None],
        "known share": [None, 0.5, None],
        "confidence": [None, None, 0.7],
        "score a": [6.0, None, None],
        "score b": [None, None, 3.0],
    }
    assert len(collect_trends(nights * 20)["novel share"]) == 30
    picture = draw_trends(trends, ["mon", "tue", "wed"])
    assert picture is not None and picture.width == 900
    assert draw_trends(collect_trends([]), []) is None


def test_the_document_holds_plain_types() -> None:
    novelty = find_novelty(np.arange(20.0), np.array([3.0, 30.0]))
    assert novelty is not None
    fields = novelty_fields(novelty, ["one.jpg", "two.jpg"])
    assert fields is not None
    assert json.loads(json.dumps(fields))["strangest"][0] == {"key": "two.jpg", "distance": 30.0}
    assert novelty_fields(None, []) is None
    assert draw_strangest(novelty, ["one.jpg", "two.jpg"], [None, None]) is not None
