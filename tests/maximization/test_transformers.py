"""Vision transformers are climbed like any network: a channel over its grid, a place, a class."""

import pytest

from cnnvis_ray.config import Maximize
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.maximization import check_recipe, maximize_channels
from tests.maximization.small_networks import Draw, find_layer, setting_of
from tests.network.transformers import BLOCKS, CROP, transformer


@pytest.mark.parametrize("library", list(BLOCKS))
def test_embedding_dimensions_of_a_block_are_climbed(library: str, draw: Draw) -> None:
    pictures = draw(transformer(library), BLOCKS[library], [0, 5], crop=CROP)
    assert [picture.channel for picture in pictures] == [0, 5]
    for picture in pictures:
        assert picture.status == "live", picture.note
        assert picture.activation > picture.start_activation


@pytest.mark.slow
@pytest.mark.parametrize("library", list(BLOCKS))
def test_classes_of_a_transformer_are_climbed(library: str, draw: Draw) -> None:
    head = {"torchvision": "heads.head", "timm": "head"}[library]
    (picture,) = draw(transformer(library), head, [3], crop=CROP, objective="class")
    assert picture.activation > picture.start_activation


def test_one_token_is_climbed_and_the_class_token_is_none(draw: Draw) -> None:
    module, name = transformer("torchvision"), BLOCKS["torchvision"]
    (picture,) = draw(module, name, [2], crop=CROP, objective="neuron", neuron=[3, 3])
    assert picture.activation > picture.start_activation
    layer = find_layer(module, name, CROP)
    recipe = Maximize(objective="neuron", neuron=(4, 0), size=CROP)
    with pytest.raises(RefusedError, match=r"is not on a map of \[4, 4\]"):
        check_recipe(module, layer, recipe, setting_of(CROP))


def test_another_size_than_the_network_takes_is_refused_with_the_one_it_takes() -> None:
    module = transformer("timm")
    layer = find_layer(module, BLOCKS["timm"], CROP)
    with pytest.raises(RefusedError, match="this network takes 32 only"):
        check_recipe(module, layer, Maximize(size=48), setting_of(CROP))


@pytest.mark.slow
def test_company_in_a_batch_changes_no_picture() -> None:
    module = transformer("timm")
    layer = find_layer(module, BLOCKS["timm"], CROP)
    recipe = Maximize(size=CROP, steps=8, batch_size=4, attempts=1)
    alone = maximize_channels(module, layer, [5], recipe, setting_of(CROP))
    company = maximize_channels(module, layer, [1, 5, 7], recipe, setting_of(CROP))
    assert (alone[0].pixels == company[1].pixels).all()
