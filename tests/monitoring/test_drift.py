import json

import numpy as np
import pytest

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.monitoring import (
    calibration,
    compare_night,
    draw_reference,
    drift,
    drift_fields,
    sensitivity,
)
from cnnvis_ray.monitoring.calibration import Values
from cnnvis_ray.monitoring.residuals import fit_residuals

SHAPES = {"early": 24, "late": 40}


def draw_images(count: int, seed: int) -> dict[str, Values]:
    """Channels as after a ReLU: a shared contrast, skewed, some mostly zero."""
    rng = np.random.default_rng(seed)
    contrast = rng.lognormal(sigma=0.4, size=(count, 1))
    found: dict[str, Values] = {}
    for name, width in SHAPES.items():
        raw = rng.normal(size=(count, width)) + np.linspace(-1, 1, width)
        found[name] = (np.maximum(raw, 0) * contrast).astype(np.float32)
    return found


def test_half_the_images_moved_in_one_layer_raise_an_alarm_that_names_it() -> None:
    night = draw_images(60, 1)
    night["late"][:30, 3] += 2
    night["late"][:30, 7] += 2
    found = compare_night(draw_images(300, 0), night)
    assert found.verdict == "changed"
    first = found.layers[0]
    assert first.layer == "late" and first.changed and first.score > first.threshold
    assert {moved.channel for moved in first.channels[:2]} == {3, 7}
    assert len(first.channels) == 10
    assert all(shift.shift > 0.3 for shift in first.channels[:2])
    assert found.layers[1].layer == "early" and not found.layers[1].changed


def test_clean_nights_raise_alarms_at_the_stated_rate() -> None:
    alarms = 0
    for seed in range(20):
        whole = draw_images(560, seed)
        reference = {name: values[:400] for name, values in whole.items()}
        calibrated = calibration.calibrate(reference, 40, 0.05, seed)
        for start in range(400, 560, 40):
            night = {name: values[start : start + 40] for name, values in whole.items()}
            alarms += any(layer.changed for layer in drift.score_night(calibrated, night)[1])
    # 80 nights at 5 %: 4 expected; 11 or more have a chance of 0.2 %.
    assert alarms <= 10


def test_a_shift_too_small_to_matter_raises_no_alarm_however_many_images_prove_it() -> None:
    rng = np.random.default_rng(3)
    reference, night = rng.normal(size=(4000, 20)), rng.normal(size=(1500, 20))
    night[:, :10] += 0.15
    found = compare_night({"late": reference}, {"late": night})
    (layer,) = found.layers
    assert layer.score > layer.threshold
    assert 0.1 < layer.largest_shift < sensitivity.EFFECT_FLOOR
    assert found.verdict == "unchanged"


def test_smallest_change_shrinks_with_more_images() -> None:
    reference = draw_images(400, 6)
    few, many = (compare_night(reference, draw_images(count, 7)) for count in (20, 120))
    assert few.smallest_change is not None and many.smallest_change is not None
    assert 0 < many.smallest_change < few.smallest_change <= 1


def test_smallest_change_is_found_when_it_is_injected() -> None:
    reference = draw_images(400, 8)
    calibrated = calibration.calibrate(reference, 80, 0.01, 0)
    share = sensitivity.find_smallest_change(calibrated, "late")
    assert share is not None
    scale = reference["late"].std(axis=0)
    alarms = []
    for seed in range(20):
        night = draw_images(80, 100 + seed)
        channels = np.random.default_rng(seed).choice(40, 10, replace=False)
        night["late"][: round(share * 80), channels] += 2 * scale[channels]
        alarms.append(any(layer.changed for layer in drift.score_night(calibrated, night)[1]))
    assert np.mean(alarms) >= 0.6  # 0.8 by simulation; 11 of 20 or fewer have a chance of 1 %


@pytest.mark.parametrize("count", [0, 1, 9])
def test_too_few_images_are_not_judged(count: int) -> None:
    found = compare_night(draw_images(100, 0), draw_images(count, 1))
    assert found.verdict == "not judged"
    assert found.reason == f"{count} images in the night, at least 10 are needed"
    assert found.smallest_change is None and found.layers == ()


def test_too_small_a_reference_is_not_judged() -> None:
    found = compare_night(draw_images(49, 0), draw_images(20, 1))
    assert found.verdict == "not judged" and "49 images in the reference" in found.reason


def test_a_night_larger_than_half_the_reference_is_judged() -> None:
    assert compare_night(draw_images(60, 0), draw_images(200, 1)).verdict == "unchanged"


def test_constant_channels_neither_raise_alarms_nor_hide_them() -> None:
    reference, night = draw_images(200, 0), draw_images(50, 1)
    for values in (reference, night):
        values["early"][:, :5] = 0.5
    night["early"][0, 0] = 1.0  # one image excites a channel that none did before
    assert compare_night(reference, night).verdict == "unchanged"
    night["early"][:, 0] = 5.0
    found = compare_night(reference, night)
    assert found.verdict == "changed" and found.layers[0].channels[0].channel == 0


def test_a_reference_of_constants_is_not_judged() -> None:
    flat = {"early": np.ones((60, 4))}
    found = compare_night(flat, {"early": np.ones((20, 4))})
    assert (found.verdict, found.reason) == (
        "not judged",
        "no channel varies over the reference",
    )


def test_negative_activations_are_judged() -> None:
    rng = np.random.default_rng(0)
    reference, night = rng.normal(size=(200, 12)), rng.normal(size=(50, 12))
    assert compare_night({"logits": reference}, {"logits": night}).verdict == "unchanged"
    night[:, 4] -= 2
    found = compare_night({"logits": reference}, {"logits": night})
    assert found.layers[0].channels[0].channel == 4
    assert found.layers[0].channels[0].shift == pytest.approx(-2, abs=0.6)


def test_the_same_seed_gives_the_same_document() -> None:
    first, second = (
        json.dumps(drift_fields(compare_night(draw_images(120, 0), draw_images(30, 1))))
        for _ in range(2)
    )
    assert first == second
    fields = json.loads(first)
    assert fields["verdict"] == "unchanged" and fields["false_alarm_rate"] == 0.01
    assert set(fields["layers"][0]) >= {"layer", "score", "threshold", "channels"}
    excess = [layer["excess"] for layer in fields["layers"]]
    assert excess == sorted(excess, reverse=True)


def test_a_wide_layer_that_follows_is_not_named_before_the_one_that_moved() -> None:
    rng = np.random.default_rng(4)
    mixing = rng.normal(size=(24, 300)) / 5

    def draw(count: int, shift: float) -> dict[str, Values]:
        early = rng.normal(size=(count, 24))
        early[:, ::2] += shift
        return {"early": early, "late": early @ mixing + rng.normal(size=(count, 300))}

    found = compare_night(draw(300, 0), draw(60, 2.5))
    assert found.verdict == "changed"
    assert [layer.layer for layer in found.layers] == ["early", "late"]


def test_what_cannot_be_compared_is_refused() -> None:
    reference, night = draw_images(60, 0), draw_images(20, 1)
    with pytest.raises(RefusedError, match="layers of the night"):
        compare_night(reference, {"early": night["early"]})
    with pytest.raises(RefusedError, match="39 channels in the night, 40 in the reference"):
        compare_night(reference, {**night, "late": night["late"][:, :-1]})
    with pytest.raises(RefusedError, match="different numbers of images"):
        compare_night(reference, {**night, "late": night["late"][:-1]})
    with pytest.raises(RefusedError, match="false-alarm rate of 0;"):
        compare_night(reference, night, 0.0)
    night["late"][0, 0] = np.nan
    with pytest.raises(RefusedError, match="late: the night holds values"):
        compare_night(reference, night)


def test_standardized_shift_and_distance_by_hand() -> None:
    values = np.array([[0.0], [1.0], [2.0], [3.0], [4.0]])
    even = np.full((3, 5), 0.2, np.float32)
    layer = calibration.calibrate_layer(values, calibration.Draws(even - even, 0.0))
    figures = calibration.measure(layer, np.array([[4.0], [4.0]]))
    assert figures[calibration.SHIFT, 0] == pytest.approx(2 / np.sqrt(2))
    assert figures[calibration.DISTANCE, 0] == pytest.approx(
        0.8
    )  # 4 of 5 lie below the last quintile


@pytest.mark.parametrize("count", [8, 50, 150])  # sparse, dense, with replacement
def test_drawn_nights_have_the_variance_of_real_ones(count: int) -> None:
    draws = calibration.draw_nights(200, count, 0)
    ones = np.ones((200, 1), np.float32)
    assert np.allclose(draws.differences(ones), 0, atol=1e-4)
    values = np.random.default_rng(0).normal(size=(200, 1)).astype(np.float32)
    expected = values.var() * (1 / count + 1 / 200)
    assert draws.differences(values).var() == pytest.approx(expected, rel=0.15)


def test_what_the_other_channels_do_not_explain_stands_out() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(900, 1)) + 0.1 * rng.normal(size=(900, 6))
    fitted = fit_residuals(values)
    assert fitted is not None
    residuals, own = fitted
    assert np.abs(own.mean(axis=0)).max() < 0.1 and own.std() == pytest.approx(1, abs=0.05)
    moved = values + np.array([0.3, 0, 0, 0, 0, 0])
    shifts = residuals.whiten(moved).mean(axis=0)
    assert np.abs(shifts).argmax() == 0
    assert shifts[0] > 1.5 * 0.3 / values[:, 0].std()


def test_one_extreme_image_raises_no_alarm() -> None:
    reference, night = draw_images(300, 0), draw_images(60, 1)
    night["late"][0] *= 1000
    assert compare_night(reference, night).verdict == "unchanged"


def test_a_very_wide_layer_is_judged_without_residuals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnnvis_ray.monitoring.residuals.MOST_CHANNELS", 10)
    night = draw_images(60, 1)
    night["late"][:, 3] += 2
    found = compare_night(draw_images(300, 0), night)
    assert found.verdict == "changed"
    assert found.layers[0].channels[0].channel == 3 and found.layers[0].channels[0].own_shift == 0


def test_a_reference_of_any_size_is_cut_to_what_is_needed() -> None:
    assert draw_reference(7, 0).tolist() == list(range(7))
    rows = draw_reference(25_000, 0)
    assert len(rows) == len(set(rows.tolist())) == calibration.MOST_REFERENCE
    assert (np.diff(rows) > 0).all()
    assert (rows == draw_reference(25_000, 0)).all()
