"""Sheets in colour: zero marked, diverging where evidence is negative, the range written."""

import numpy as np
import pytest

from cnnvis_ray.config.explanation import Explain, Pictures
from cnnvis_ray.explanation import image_sheets
from cnnvis_ray.explanation.evidence import (
    BAR_HEIGHT,
    BAR_WIDTH,
    MAP_SIDE,
    Evidence,
    draw_legend,
    overlay,
)
from cnnvis_ray.explanation.heat import Heat
from cnnvis_ray.explanation.methods import METHODS, Answer
from cnnvis_ray.explanation.occlusion import squares, step_of
from cnnvis_ray.explanation.tasks import Wanted

RAMP = np.linspace(-1, 3, 64).reshape(8, 8)


def colours_at(evidence: Evidence, values: list[float]) -> list[tuple[int, ...]]:
    drawn = np.asarray(evidence.colours(np.array([values])))
    return [tuple(pixel) for pixel in drawn[0].tolist()]


def test_negative_evidence_diverges_around_zero_on_one_scale() -> None:
    signed = Evidence(RAMP, "fall of the score")
    assert signed.diverges
    assert signed.range == pytest.approx((-1, 3))
    against, none, for_it, half = colours_at(signed, [-3, 0, 3, 1.5])
    assert against == (5, 48, 97)  # the ends of ColorBrewer's RdBu
    assert min(none) >= 246
    assert for_it == (103, 0, 31)
    assert half[0] > 2 * half[2]
    assert not Evidence(RAMP + 1, "").diverges
    assert not Evidence(np.maximum(RAMP, -0.01), "").diverges  # rounding below zero


def test_the_range_of_a_gradient_leaves_out_its_outliers() -> None:
    values = np.random.default_rng(0).normal(size=(50, 50))
    values[0, 0] = 1000
    low, high = Evidence(values, "gradient", 98).range
    assert -3 < low < -2
    assert 2 < high < 3
    assert Evidence(values, "gradient").range[1] == 1000


def test_zero_is_marked_on_the_bar_where_it_lies() -> None:
    drawn = np.asarray(draw_legend(Evidence(RAMP, ""), 224))
    left, top = (224 - BAR_WIDTH) // 2, MAP_SIDE + 6
    middle = drawn[top + BAR_HEIGHT // 2, left : left + BAR_WIDTH]
    (black,) = np.flatnonzero((middle == 0).all(axis=1))
    assert black == round((BAR_WIDTH - 1) / 4)  # from -1 to 3
    assert drawn[top + BAR_HEIGHT + 2 :].max() > 200  # the range is written below
    without = np.asarray(draw_legend(Evidence(RAMP + 2, ""), 224))
    bar = without[top + BAR_HEIGHT // 2, left : left + BAR_WIDTH]
    assert not (bar == 0).all(axis=1).any()


def test_an_overlay_shows_the_image_where_nothing_is_evidence() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    values = np.zeros((16, 16))
    values[:, 8:], values[0, 0] = 5, -5
    drawn = np.asarray(overlay(pixels, Evidence(values, "")), int)
    assert drawn[4:, :4, 0].std() > 2 * drawn[4:, 12:, 0].std()
    assert drawn[8, 12, 0] > drawn[8, 12, 2]  # red: for it


@pytest.mark.parametrize("method", ["occlusion", "saliency", "grad_cam"])
def test_what_is_drawn_of_a_method(method: str) -> None:
    heat = Heat(np.array([[0.0, 1.0]]), 2.0, 6.0)
    stored = METHODS[method].evidence(heat, Answer(np.zeros((1, 2, 2))), 0)
    assert stored.range == pytest.approx((2, 6))
    signed = METHODS[method].evidence(heat, Answer(np.ones((1, 4, 4)), signed=RAMP[None]), 0)
    assert signed.values.shape == (8, 8)
    assert signed.percent == (100 if method == "occlusion" else 98)


def test_a_sheet_has_product_overlay_and_legend() -> None:
    pixels = np.full((32, 32, 3), 200, np.uint8)
    heats = {"saliency": Heat(np.eye(8), 0.0, 1.0), "grad_cam": Heat(np.zeros((8, 8)), 0.0, 0.0)}
    evidence = {name: Evidence(RAMP, "unit") for name in heats}
    sheet = image_sheets.draw_overview("key", ["note"], pixels, heats, evidence, Pictures())
    assert sheet.height > 3 * image_sheets.SIDE
    assert Wanted(1, "key", True, False).label is None


def test_red_maps_show_what_speaks_for_it_alone() -> None:
    red = Evidence(RAMP, "").drawn_in("Reds")
    assert red.range == pytest.approx((0, 3))
    assert not red.diverges
    against, none, for_it = colours_at(red, [-1, 0, 3])
    assert against == none == (255, 245, 240)
    assert for_it == pytest.approx((103, 0, 13), abs=1)


def test_squares_overlap_by_half_unless_the_stride_is_given() -> None:
    assert step_of(Explain()) == 28
    assert step_of(Explain(patch=1)) == 1
    assert step_of(Explain(patch=56, stride=56)) == 56
    assert len(squares(224, 56, 28)) == 49
