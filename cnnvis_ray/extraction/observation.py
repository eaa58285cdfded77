"""What one layer's activation leaves behind: features to write and statistics to merge.

Observers run inside the forward hook and reduce at once, before a following in-place ReLU could
change the activation; no activation map is kept.
"""

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnnvis_ray.channels import ImageResponses, StatisticsBuilder
from cnnvis_ray.errors import CnnvisError
from cnnvis_ray.extraction.batches import Batch
from cnnvis_ray.network import Pooling, channel_responses, places

PLACES = 64  # of each image's map, whose activations are counted: seeded by the image alone


class Observer:
    """Reduces the activations of one unit, batch by batch, in float32.

    Attributes:
        statistics: by layer, of all batches so far.
        features: by layer, the present batch's rows.
    """

    def __init__(self, pooling: Pooling, schemas: dict[str, pa.Schema], best: int) -> None:
        self.pooling = pooling
        self.schemas = schemas
        self.best = best
        self.statistics: dict[str, StatisticsBuilder] = {}
        self.features: dict[str, pa.Table] = {}
        self.batch: Batch | None = None
        self.fractions = np.zeros((0, PLACES, 2))  # of the map's height and width

    def begin(self, batch: Batch) -> None:
        """Set the batch whose activations come next."""
        self.batch = batch
        self.features = {}
        ids = [image.image_id for image in batch.images]
        drawn = [np.random.default_rng(identity).random((PLACES, 2)) for identity in ids]
        self.fractions = np.stack(drawn)

    def __call__(self, layer: str, activation: Tensor) -> None:
        """Reduce one layer's activation for the present batch."""
        assert self.batch is not None
        kept = activation
        if len(self.batch.images) < len(activation):
            kept = activation[torch.tensor(self.batch.positions, device=activation.device)]
        with torch.autocast(activation.device.type, enabled=False):
            self.observe_statistics(layer, kept)
            self.features[layer] = self.rows(layer, self.pooling(kept))

    def observe_statistics(self, layer: str, activation: Tensor) -> None:
        """Merge the batch's map means and maxima."""
        assert self.batch is not None
        means, peaks = (values.cpu().numpy() for values in channel_responses(activation))
        self.check_finite(layer, means)

        def find(image: NDArray[np.intp], channel: NDArray[np.intp]) -> NDArray[np.int32]:
            return places(activation, image, channel)

        ids = [image.image_id for image in self.batch.images]
        keys = [image.key for image in self.batch.images]
        sampled = sample(activation, self.fractions).float().cpu().numpy()
        if layer not in self.statistics:
            self.statistics[layer] = StatisticsBuilder(means.shape[1], self.best)
        self.statistics[layer].add(ImageResponses(means, peaks, sampled, find, ids, keys))

    def rows(self, layer: str, pooled: Tensor) -> pa.Table:
        """Return the batch's features in the dtype of the schema."""
        assert self.batch is not None
        schema = self.schemas[layer]
        kind = schema.field("feature").type
        dtype = torch.float16 if kind.value_type == pa.float16() else torch.float32
        values = pooled.to(dtype).cpu().contiguous().numpy()
        self.check_finite(layer, values)
        ids = pa.array([image.image_id for image in self.batch.images], pa.int64())
        cells = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=kind)
        return pa.table([ids, cells], schema=schema)

    def check_finite(self, layer: str, values: NDArray[np.floating]) -> None:
        """Refuse to store NaN and infinity.

        Raises:
            CnnvisError: names layer and image.
        """
        assert self.batch is not None
        finite = np.isfinite(values).all(axis=1)
        if finite.all():
            return
        key = self.batch.images[int(np.argmin(finite))].key
        raise CnnvisError(
            f"layer {layer} has values that its dtype cannot hold (NaN, infinite or above "
            f"65,504 in float16) for image {key!r}; set extract.dtype and extract.precision to "
            "float32, or check the network"
        )


def sample(activation: Tensor, fractions: NDArray[np.float64]) -> Tensor:
    """Select the activation at some places of each image.

    Args:
        activation: ``[batch, channels, height, width]`` or ``[batch, channels]``.
        fractions: where, as shares of height and width, ``[batch, place, 2]``; a map with no more
            places than that is taken whole.

    Returns:
        ``[value, channels]``.
    """
    if activation.dim() == 2:
        return activation
    height, width = activation.shape[2:]
    if height * width <= fractions.shape[1]:
        return activation.permute(0, 2, 3, 1).reshape(-1, activation.shape[1])
    y, x = (torch.from_numpy((fractions * (height, width)).astype(np.int64))).unbind(2)
    image = torch.arange(len(activation))[:, None]
    index = [place.to(activation.device) for place in (image, y, x)]
    return activation.permute(0, 2, 3, 1)[index[0], index[1], index[2]].flatten(0, 1)
