"""A worker's process: its device, its threads, and the memory that it keeps."""

import ctypes
import sys

import torch

from cnnvis_ray.errors import CnnvisError

# glibc, malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
NEVER_TRIM = 2**31 - 1


def prepare_device(device: str, threads: int) -> None:
    """Make this process ready to run a network.

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
    """Keep freed memory for the next batch, instead of giving it back to the kernel each time.

    Every activation is as large as the last batch's, and glibc maps and unmaps large blocks anew:
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
