"""CUDA graphs: the kernels of a forward pass, recorded once per input shape and replayed as one.

At batch 1 a modern GPU finishes most kernels of this model sooner than Python can launch the next one.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from memorygan.composition import Fused, RenderNet
from memorygan.memory import PartMemory, Retrieved

Tensors = tuple[Tensor, ...]

# Every recording keeps its activations. A session needs a handful: all parts, one part, full size, preview.
MAX_RECORDINGS = 8
WARM_UP_RUNS = 3


class Recording:
    """One function at one set of input shapes."""

    def __init__(self, function: Callable[..., Tensors], inputs: Tensors) -> None:
        # Ordinary tensors even if the caller is in inference mode: the next caller may not be.
        with torch.inference_mode(False), torch.no_grad():
            self.inputs = tuple(tensor.detach().clone() for tensor in inputs)
            # Libraries allocate and choose their algorithms on the first runs, which must not be recorded.
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UP_RUNS):
                    function(*self.inputs)
            torch.cuda.current_stream().wait_stream(side)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.outputs = function(*self.inputs)

    def replay(self, inputs: Tensors) -> Tensors:
        """The function's result, in tensors of its own: the next replay overwrites the recorded ones."""
        with torch.no_grad():
            for ours, theirs in zip(self.inputs, inputs, strict=True):
                ours.copy_(theirs)
            self.graph.replay()
            return tuple(output.clone() for output in self.outputs)


class Recordings:
    """Replays a function where it was recorded for such inputs, and runs it as usual where that is not possible."""

    def __init__(self) -> None:
        self._recordings: dict[Hashable, Recording] = {}
        self._lock = threading.Lock()
        self._failed = False

    def run(self, key: Hashable, function: Callable[..., Tensors], inputs: Tensors) -> Tensors:
        """``function(*inputs)``; ``key`` stands for everything that decides its kernels but the inputs' shapes."""
        needs_gradient = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
        if self._failed or needs_gradient or not all(tensor.is_cuda for tensor in inputs):
            return function(*inputs)
        key = (key, *((tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device) for tensor in inputs))
        with self._lock:  # two threads must not fill the same inputs
            if key not in self._recordings:
                if len(self._recordings) >= MAX_RECORDINGS:
                    return function(*inputs)
                try:
                    self._recordings[key] = Recording(function, inputs)
                except RuntimeError as error:
                    self._failed = True
                    warnings.warn(f"recording a CUDA graph failed, going on without: {error}", stacklevel=2)
                    return function(*inputs)
            return self._recordings[key].replay(inputs)


class GraphedMemory(PartMemory):
    """A memory whose queries are replayed."""

    def __init__(self, memory: PartMemory) -> None:
        super().__init__()
        self.memory = memory
        self._recordings = Recordings()

    def forward(self, styles: Tensor, parts: Sequence[int], dtype: torch.dtype, shared_base: bool = False) -> Retrieved:
        """As the memory's."""

        def query(styles: Tensor) -> Tensors:
            retrieved: Retrieved = self.memory(styles, parts, dtype, shared_base)
            return retrieved.hidden, retrieved.depth

        return Retrieved(*self._recordings.run((tuple(parts), dtype, shared_base), query, (styles,)))

    def style_weights(self) -> Tensor:
        """The memory's."""
        return self.memory.style_weights()

    def feature(self, hidden: Tensor, weights: Tensor) -> Tensor:
        """As the memory's."""
        return self.memory.feature(hidden, weights)


class GraphedRender(RenderNet):
    """A render net whose passes are replayed."""

    def __init__(self, render: RenderNet) -> None:
        # Takes over the modules and settings instead of building new ones.
        torch.nn.Module.__init__(self)
        self.coarse_size, self.refine_sizes = render.coarse_size, render.refine_sizes
        self.sides, self.blocks = render.sides, render.blocks
        self._recordings = Recordings()

    def forward(self, fused: Fused, size: int | None = None) -> tuple[Tensor, Tensor]:
        """As :meth:`RenderNet.forward`."""

        def draw(feature: Tensor, coarse_mask: Tensor) -> Tensors:
            return super(GraphedRender, self).forward(Fused(feature, coarse_mask), size)

        image, mask = self._recordings.run(size, draw, (fused.feature, fused.coarse_mask))
        return image, mask
