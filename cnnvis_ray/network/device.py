"""A worker's process: its device, threads, memory and precision."""

import ctypes
import sys

import torch

from cnnvis_ray.errors import CnnvisError

# glibc, malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
NEVER_TRIM = 2**31 - 1


def prepare_device(device: str, threads: int) -> None:
    """Set the threads and memory of this process, and check its device.

    Args:
        device: ``cpu`` or ``cuda:0``.
        threads: how many torch may use.

    Raises:
        CnnvisError: there is no such GPU.
    """
    if device != "cpu" and not torch.cuda.is_available():
        raise CnnvisError(
            f"this worker was given {device}, but torch finds no usable GPU there; set "
            "cluster.gpus_per_worker to 0 for CPUs"
        )
    torch.set_num_threads(threads)
    keep_memory()


def keep_memory() -> None:
    """Keep freed memory for the next batch, instead of returning it to the kernel each time.

    Every activation is as large as the last batch's, and glibc maps and unmaps large blocks again:
    each page is faulted in and zeroed again. The peak stays what it was. Predicted: a few percent.
    Seen on two cores: SqueezeNet's forward at batch 32, 131 to 260 images/s; VGG16's at 8, 9.3 to
    10.7; a step of maximization (features.10), 70 to 52 ms.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's alone
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, NEVER_TRIM)
        mallopt(M_MMAP_MAX, 0)


def forward_precision(device: str, precision: str) -> torch.autocast:
    """Return the context in which a forward pass computes in a precision.

    In bfloat16, convolutions and linear layers round their inputs, weights and outputs to 8
    significant bits; statistics and features are summed in float32. Measured on SqueezeNet 1.1,
    trained weights, 25 photos: map means differ from float32 by at most 0.3 % of the layer's
    largest at features.0 and 0.8 % at features.8, maxima by 0.3 % and 1.5 %; the first class is
    the same for all 25. A CPU without bfloat16 instructions needs 2.6 times float32's time.

    Args:
        device: ``cpu`` or ``cuda:0``.
        precision: ``float32`` (nothing changes) or ``bfloat16``.
    """
    return torch.autocast(
        torch.device(device).type, torch.bfloat16, enabled=precision == "bfloat16"
    )
