"""Places: nothing is cut, nothing overlaps in a grid, and neighbours stay neighbours."""

from math import isqrt

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.pictures import grid_places, grid_quality, grid_shape, scatter_places
from cnnvis_ray.pictures.layouts import (
    MOST_AT_ONCE,
    cell_boxes,
    cells_of,
    exchange,
    halve,
    unit_square,
)

Array = npt.NDArray[np.floating]

coordinates = st.floats(-1e6, 1e6, width=32)


def islands(num_images: int, num_islands: int = 12) -> Array:
    """Positions as t-SNE makes them: dense islands of several sizes with sea between."""
    generator = np.random.default_rng(num_images)
    centres = generator.uniform(-50, 50, (num_islands, 2))
    spread = generator.uniform(1, 6, num_islands)
    island = generator.integers(num_islands, size=num_images)
    return centres[island] + generator.normal(size=(num_images, 2)) * spread[island, None]


def kept_neighbours(positions: Array, cells: npt.NDArray[np.int64], columns: int) -> float:
    """Share of each image's 4 nearest on the map that lie among the 24 cells around its own."""
    near = cKDTree(positions).query(positions, k=5)[1][:, 1:]
    places = np.stack(np.divmod(cells, columns), axis=1)
    steps = np.abs(places[near] - places[:, None]).max(axis=-1)
    return float((steps <= 2).mean())


def raster_sort(positions: Array, columns: int) -> npt.NDArray[np.int64]:
    """The simplest grid: rows by y, then each row by x."""
    by_row = np.argsort(-positions[:, 1])
    cells = np.empty(len(positions), dtype=np.int64)
    for first in range(0, len(positions), columns):
        row = by_row[first : first + columns]
        cells[row[np.argsort(positions[row, 0])]] = first + np.arange(len(row))
    return cells


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=40),
    st.integers(1, 9),
    st.integers(0, 20),
)
def test_a_grid_is_an_injection(
    pairs: list[tuple[float, float]], columns: int, spare: int
) -> None:
    positions = np.array(pairs)
    rows = -(-(len(pairs) + spare) // columns)
    cells = grid_places(positions, columns, rows)
    assert len(set(cells.tolist())) == len(pairs)
    assert cells.min() >= 0 and cells.max() < columns * rows


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.integers(1, 23), st.integers(0, 30), st.booleans())
def test_halving_and_exchanging_keep_every_image_once(
    count: int, columns: int, spare: int, equal: bool
) -> None:
    rows = -(-(count + spare) // columns)
    points = np.zeros((count, 2)) if equal else np.random.default_rng(count).random((count, 2)) * 9
    cells = cells_of(exchange(halve(points, columns, rows), points), count)
    assert sorted(cells.tolist()) == list(range(count))


def test_large_grids_are_bijections_in_every_case() -> None:
    count = MOST_AT_ONCE + 57
    columns, rows = grid_shape(count, 400, 300)
    line = np.stack([np.linspace(0, 9, count), np.zeros(count)], axis=1)
    unit = np.random.default_rng(0).random((count, 2))
    for positions in (np.zeros((count, 2)), line, unit, islands(count), islands(count) * 1e-9):
        cells = grid_places(positions, columns, rows)
        assert sorted(cells.tolist()) == list(range(count))


@pytest.mark.parametrize("count", [600, 4000, 15_000])
def test_neighbours_stay_neighbours(count: int) -> None:
    positions = islands(count)
    columns, rows = grid_shape(count, 4000, 2800)
    ours = kept_neighbours(positions, grid_places(positions, columns, rows), columns)
    assert ours > 0.85
    assert ours > kept_neighbours(positions, raster_sort(positions, columns), columns) + 0.2


@pytest.mark.parametrize("count", [144, 2500])
def test_a_map_that_is_a_grid_comes_out_as_it_was(count: int) -> None:
    side = isqrt(count)
    row, column = np.divmod(np.random.default_rng(0).permutation(count), side)
    for scale in (1.0, 1 / (side - 1)):  # in [0, 1] as well, where RasterFairy scrambled
        positions = np.stack([column * scale, row * -scale], axis=1)
        np.testing.assert_array_equal(grid_places(positions, side, side), row * side + column)


def test_a_grids_quality_stands_beside_its_control() -> None:
    positions = islands(3000)
    columns, rows = grid_shape(3000, 4000, 2800)
    cells = grid_places(positions, columns, rows)
    kept, shuffled = grid_quality(positions, cells, columns)
    assert kept == pytest.approx(kept_neighbours(positions, cells, columns), abs=0.01)
    assert kept > 0.85 and shuffled < 0.03
    assert grid_quality(positions[:1], cells[:1], 1) == (1, 1)


def test_the_same_map_gives_the_same_grid() -> None:
    positions = islands(2000)
    np.testing.assert_array_equal(
        grid_places(positions, 50, 40), grid_places(positions.copy(), 50, 40)
    )


def test_impossible_grids_are_refused() -> None:
    with pytest.raises(ValueError, match="5 images do not fit 2 x 2 cells"):
        grid_places(islands(5), 2, 2)
    with pytest.raises(ValueError, match="not finite"):
        grid_places(np.array([[0.0, np.nan]]), 1, 1)
    assert grid_places(np.zeros((0, 2)), 1, 1).shape == (0,)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 5000), st.integers(40, 4000), st.integers(40, 4000))
def test_a_shape_holds_all_images_in_cells_nearly_as_large_as_possible(
    count: int, width: int, height: int
) -> None:
    if count > width * height // 4:
        return
    columns, rows = grid_shape(count, width, height)
    assert 0 <= columns * rows - count < columns
    side = min(width / columns, height / rows)
    best = max(min(width / c, height / -(-count // c)) for c in range(1, min(count, width) + 1))
    assert side >= 0.92 * best - 1e-9


def test_shapes_by_hand() -> None:
    assert grid_shape(1, 4000, 3000) == (1, 1)
    assert grid_shape(12, 400, 300) == (4, 3)
    assert grid_shape(1000, 4000, 2820) == (40, 25)
    with pytest.raises(RefusedError, match="10000 images do not fit a grid of 40 x 30 pixels"):
        grid_shape(10_000, 40, 30)


def test_cells_cover_the_canvas() -> None:
    boxes = cell_boxes(7, 5, 100, 52)
    area = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sum()
    assert area == 100 * 52
    assert boxes[0].tolist() == [0, 0, 14, 10]
    assert boxes[-1].tolist() == [85, 41, 100, 52]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=30), st.integers(1, 50))
def test_no_tile_is_cut(pairs: list[tuple[float, float]], side: int) -> None:
    places = scatter_places(np.array(pairs), 100, 50, side)
    assert (places >= 0).all()
    assert (places + side <= [100, 50]).all()


def test_scatter_fills_the_canvas_with_y_upwards() -> None:
    positions = np.array([[0.0, 0.0], [10.0, 5.0], [5.0, 5.0]])
    assert scatter_places(positions, 110, 60, 10).tolist() == [[0, 50], [100, 0], [50, 0]]


def test_positions_without_extent_lie_in_the_middle() -> None:
    assert unit_square(np.ones((3, 2))).tolist() == [[0.5, 0.5]] * 3
    assert unit_square(np.array([[1.0, 2], [3, 2]])).tolist() == [[0, 0.5], [1, 0.5]]
