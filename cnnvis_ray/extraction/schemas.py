"""The Parquet schemas of what extraction writes; the same in every shard, also an empty one."""

import pyarrow as pa

from cnnvis_ray.config import Extract
from cnnvis_ray.network import Layer

PREDICTION = pa.struct(
    [("index", pa.int32()), ("name", pa.string()), ("probability", pa.float32())]
)
IMAGES = pa.schema(
    [
        ("image_id", pa.int64()),
        ("key", pa.string()),
        ("label", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("thumbnail", pa.binary()),
        ("top5", pa.list_(PREDICTION)),  # null where the network does not classify
    ]
)
REJECTS = pa.schema(
    [
        ("image_id", pa.int64()),
        ("key", pa.string()),
        ("stage", pa.string()),
        ("error", pa.string()),
    ]
)


def features(layer: Layer, extract: Extract, width: int) -> pa.Schema:
    """Return the schema of a layer's features.

    Args:
        layer: the layer.
        extract: pooling and dtype.
        width: numbers a feature.
    """
    kind = pa.float16() if extract.dtype == "float16" else pa.float32()
    shape = [layer.channels, *(side for side in (layer.height, layer.width) if side is not None)]
    about = {
        "layer": layer.name,
        "pooling": extract.pooling,
        "dtype": extract.dtype,
        "shape": " ".join(map(str, shape)),
    }
    fields = [("image_id", pa.int64()), ("feature", pa.list_(pa.field("item", kind), width))]
    return pa.schema(fields, metadata=about)
