"""Imports torchvision without torch's compiler, which one of its functions may ask for later.

torchvision.ops.roi_align imports `torch._dynamo.utils` for a question that only detection
networks ask. Predicted: a quarter of a start. Measured: 1.4 of 4.1 CPU seconds of
``cnnvis layers``, and as much in each worker. The question still gets its answer.
"""

import sys
from types import ModuleType

import torch  # noqa: F401  a name below is torch's

COMPILER = "torch._dynamo.utils"


def is_compile_supported(device_type: str) -> bool:
    """Ask torch's compiler, once somebody wants to know."""
    from torch._dynamo import utils

    return bool(utils.is_compile_supported(device_type))


def import_torchvision() -> None:
    """Import torchvision, with a stand-in for the compiler's module meanwhile."""
    if COMPILER in sys.modules or "torchvision" in sys.modules:
        return
    stand_in = ModuleType(COMPILER)
    vars(stand_in)["is_compile_supported"] = is_compile_supported
    sys.modules[COMPILER] = stand_in
    try:
        import torchvision  # noqa: F401
    except ImportError:  # another torchvision wants more of it
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
    finally:
        del sys.modules[COMPILER]


import_torchvision()
