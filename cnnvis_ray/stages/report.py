"""The stage ``report``: the explorer, a folder of pages that opens by double click.

Parts of the report record the digests of what they show, so that writing again writes what
changed; a report that refuses nothing of a run needs no claim in the ledger.
"""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from cnnvis_ray.cluster import Session
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.ledger import open_run
from cnnvis_ray.network import build_module
from cnnvis_ray.network.layers.trace import tensors_in
from cnnvis_ray.report import Inputs, Maker, Options, Part, write_report
from cnnvis_ray.stages.job import Job
from cnnvis_ray.stages.reduce import FEW_IMAGES, map_on
from cnnvis_ray.stages.summary import Summary
from cnnvis_ray.storage import ShardFile

APART = frozenset(
    "relu hardtanh hardswish silu gelu leaky_relu elu sigmoid clamp clamp_min native_batch_norm "
    "_native_batch_norm_legit_no_training cudnn_batch_norm native_dropout dropout clone detach "
    "alias max_pool2d_with_indices max_pool2d avg_pool2d _adaptive_avg_pool2d mean to _to_copy".split()
)
"""ATen operations that keep channels apart; `channels` alone could not tell."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Reporting:
    """The report of a run."""

    job: Job
    units: None = None

    def do(self, session: Session, summary: Summary) -> None:
        """Write what is due of the report."""
        job = self.job
        order = tuple(layer.name for layer in job.vision.table.layers)
        options = Options(
            job.config.report.max_images, order, find_inputs(job), job.config.report.compare
        )
        large = job.image_keys().num_rows > FEW_IMAGES

        def mapped(maker: Maker, parts: list[Part]) -> Iterable[tuple[Part, list[ShardFile]]]:
            if large:
                return map_on(job, session)(maker, parts)
            return log_parts(maker, parts)

        written = write_report(job.config.run_dir, options, mapped)
        summary.note("report", parts=written.parts, made=written.made, bytes=written.bytes)
        log.info(
            "report: %d of %d parts written, %.1f MB together",
            written.made,
            written.parts,
            written.bytes / 1e6,
        )


def decide(job: Job) -> Reporting:
    """Check that there are images to show.

    Raises:
        RefusedError: the run has no usable image, and none is extracted by this invocation; the
            run to compare with is not a run.
    """
    if "extract" not in job.stages and not job.image_keys().num_rows:
        raise RefusedError(
            f"report: the run has no usable image yet; first: cnnvis extract {job.store.root}"
        )
    other = job.config.report.compare
    if other is not None:
        open_run(other)
    return Reporting(job)


def log_parts(maker: Maker, parts: list[Part]) -> Iterator[tuple[Part, list[ShardFile]]]:
    """Make parts in this process."""
    for part in parts:
        log.debug("report: %s", part.name)
        yield maker(part)


def find_inputs(job: Job) -> dict[str, Inputs]:
    """Find, by layer, the shown layer that feeds it, with the norms of the kernels between them."""
    shown = {layer for owner in job.ledger.passes("extract") for layer in owner.layers}
    if len(shown) < 2 or not job.vision.network.state:
        return {}
    module = build_module(job.vision.network)
    preprocess = job.vision.network.preprocess
    return chain(module, (1, preprocess.channels, preprocess.crop, preprocess.crop), shown)


@dataclass(frozen=True, slots=True)
class Step:
    """One operation of a forward pass: its name, its inputs, and a convolution's kernels."""

    name: str
    inputs: tuple["Step", ...]
    channels: int
    kernels: NDArray[np.float32] | None = None
    layers: set[str] = field(default_factory=set)

    def __hash__(self) -> int:
        return id(self)


class Watcher(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own gap
    """Notes which operation made each tensor; one in place makes its tensor again."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: dict[int, Step] = {}
        self.kept: list[Tensor] = []  # so that no id is used twice

    def __torch_dispatch__(
        self,
        func: OpOverload[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run one operation and note its outputs."""
        output = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__.rstrip("_")
        inputs = tuple(self.steps[id(t)] for t in tensors_in(args) if id(t) in self.steps)
        plain = name == "convolution" and args[8] == 1 and not args[6]  # of one group
        weight = args[1] if plain else None
        kernels = weight.float().numpy() if isinstance(weight, Tensor) else None
        for made in tensors_in(output):
            if made.dim() == 4:
                self.kept.append(made)
                self.steps[id(made)] = Step(name, inputs, made.shape[1], kernels)
        return output


def chain(module: nn.Module, size: tuple[int, ...], shown: Collection[str]) -> dict[str, Inputs]:
    """Find which shown layers chain directly, by one forward pass.

    Two layers do where nothing lies between them but operations that keep channels apart
    (activation, pooling, normalization), convolutions whose outputs are joined, and at most one
    bottleneck of 1 x 1: those kernels are multiplied (Voss et al. 2021, Visualizing Weights,
    doi:10.23915/distill.00024.007), without the activation between them.

    Returns:
        By layer, the layer before and the norms over places, ``channel input``.
    """
    watcher = Watcher()
    last: dict[str, Step] = {}

    def note(layer: str, output: object) -> None:
        step = watcher.steps.get(id(output))
        if step is not None:
            step.layers.add(layer)
            last[layer] = step

    hooks = [
        found.register_forward_hook(lambda _, __, output, name=name: note(name, output))
        for name, found in module.named_modules()
        if name in shown
    ]
    try:
        with torch.no_grad(), watcher:
            image = torch.zeros(size)
            watcher.steps[id(image)] = Step("image", (), size[1])
            watcher.kept.append(image)
            module(image)
    finally:
        for hook in hooks:
            hook.remove()
    pairs = {layer: inputs_of(step, layer) for layer, step in last.items()}
    return {layer: found for layer, found in pairs.items() if found is not None}


def inputs_of(step: Step, layer: str) -> Inputs | None:
    """Return the shown layer that a step's convolutions read, with the norms of their kernels."""
    end = walk(step)
    parts = [walk(part) for part in end.inputs] if end.name == "cat" else [end]
    if not parts or any(part.kernels is None for part in parts):
        return None
    found: list[Inputs] = []
    for part in parts:
        kernels, source = part.kernels, part.inputs[0]
        before = nearest(source, layer)
        squeeze = walk(source)
        if before is None and squeeze.kernels is not None and squeeze.kernels.shape[2:] == (1, 1):
            kernels = np.einsum("omyx,mi->oiyx", kernels, squeeze.kernels[:, :, 0, 0])
            before = nearest(squeeze.inputs[0], layer)
        if before is None or kernels is None:
            return None
        found.append((before, np.sqrt(np.square(kernels).sum(axis=(2, 3)))))
    if len({before for before, _ in found}) != 1:
        return None
    return found[0][0], np.concatenate([norms for _, norms in found])


def walk(step: Step) -> Step:
    """Go back over operations that keep channels apart."""
    while is_apart(step):
        step = step.inputs[0]
    return step


def nearest(step: Step, layer: str) -> str | None:
    """Return the nearest shown layer from a step back; None where another operation comes first."""
    while not step.layers - {layer} and is_apart(step):
        step = step.inputs[0]
    return min(step.layers - {layer}, default=None)


def is_apart(step: Step) -> bool:
    """Whether each output channel comes from the input channel of the same number alone."""
    return (
        step.name in APART and len(step.inputs) == 1 and step.channels == step.inputs[0].channels
    )
