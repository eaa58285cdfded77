"""Weights by URI: read from an object store, and its trouble told without credentials."""

import pytest
import safetensors.torch
import torch

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.network.loading.weights import read_weights
from cnnvis_ray.storage import Store
from tests.object_stores.conftest import SECRET
from tests.object_stores.server import Fault, S3Server


def test_weights_in_a_store(bucket: str, s3: S3Server) -> None:
    Store(bucket).write("w.safetensors", safetensors.torch.save({"a": torch.ones(2)}))
    assert read_weights(f"{bucket}/w.safetensors").state["a"].tolist() == [1.0, 1.0]
    s3.faults.append(Fault("^(HEAD|GET)", "403 Forbidden", "AccessDenied"))
    with pytest.raises(RefusedError, match="cannot be read: the store denies access"):
        read_weights(f"{bucket}/w.safetensors")


@pytest.mark.parametrize(
    "address",
    [f"s3://k:{SECRET}@bucket/w.safetensors", f"https://host/w.safetensors?sig={SECRET}"],
)
def test_credentials_in_the_address_are_refused(address: str) -> None:
    with pytest.raises(RefusedError) as caught:
        read_weights(address)
    assert SECRET not in str(caught.value)
