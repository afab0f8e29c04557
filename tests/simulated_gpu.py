"""A GPU that is not there, for tests of what would otherwise run only on a machine that has one.

Tensors that were sent to ``cuda`` keep their numbers on the processor, but say that they are on ``cuda:0``, and refuse
what CUDA refuses: work that mixes both devices, numpy, and copies from or to the host while a CUDA graph is recorded.
So wrong devices are found, and results can be compared with those of the processor. Speed, memory and rounding on a
GPU are another matter.

To torch's C++ such tensors are on ``meta``, which, unlike ``cuda``, it accepts without a driver.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

aten = torch.ops.aten
CUDA, META = torch.device("cuda", 0), torch.device("meta")
# These may have tensors on both devices; of the second kind, all but the indices must be on one.
COPIES = {aten.copy_.default, aten._to_copy.default, aten._foreach_copy_.default}
INDEXED = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
}
WAITING = {aten._local_scalar_dense.default, aten.nonzero.default, aten.item.default}


class DeviceError(RuntimeError):
    """What CUDA would have refused."""


class OnGpu(torch.Tensor):
    """A tensor on the simulated GPU.

    Attributes:
        numbers: where they really are.
    """

    numbers: Tensor
    device = property(lambda self: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]
    is_meta = property(lambda self: False)  # type: ignore[assignment]
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, numbers: Tensor) -> OnGpu:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            numbers.size(),
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            layout=numbers.layout,
            device=META,
        )
        made.numbers = numbers
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return run(func, args, kwargs or {})

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            with torch.no_grad():
                copied: Tensor = OnGpu(self.numbers.clone())
            is_parameter = isinstance(self, nn.Parameter)
            memo[id(self)] = nn.Parameter(copied) if is_parameter else copied
            memo[id(self)].requires_grad_(self.requires_grad)
        return memo[id(self)]

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"OnGpu({self.numbers!r})"

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    __array__ = numpy

    def tolist(self) -> Any:
        return self.numbers.tolist()

    def cpu(self, *_: Any, **__: Any) -> Tensor:
        return self.to("cpu")

    def cuda(self, *_: Any, **__: Any) -> Tensor:
        return self

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        if args and isinstance(args[0], Tensor):
            args = (args[0].device, args[0].dtype, *args[1:])
        always = kwargs.pop("copy", False)
        parsed: Any = torch._C._nn._parse_to(*args, **kwargs)
        device, dtype, layout = parsed[0] or CUDA, parsed[1] or self.dtype, parsed[3]
        if device.type == "cuda" and dtype == self.dtype and layout is None and not always:
            return self
        more = {} if layout is None else {"memory_format": layout}
        return aten._to_copy.default(self, device=device, dtype=dtype, **more)


class Graph:
    """In place of ``torch.cuda.CUDAGraph``: what was recorded, which a replay computes anew into the same tensors.

    Attributes:
        replays: of all graphs.
    """

    replays = 0

    def __init__(self) -> None:
        self.recorded: list[tuple[Any, Any, Any, Any]] = []

    def replay(self) -> None:
        Graph.replays += 1
        for func, args, kwargs, outputs in self.recorded:
            anew = tree_flatten(func(*args, **kwargs))[0]
            for ours, new in zip(tree_flatten(outputs)[0], anew, strict=True):
                if ours.data_ptr() != new.data_ptr():
                    ours.copy_(new)


class Recording:
    """Which graph this thread records, if any."""

    now = threading.local()

    @classmethod
    def graph(cls) -> Graph | None:
        return getattr(cls.now, "graph", None)

    @classmethod
    @contextlib.contextmanager
    def of(cls, graph: Graph, *_: Any, **__: Any) -> Iterator[None]:
        cls.now.graph = graph
        try:
            yield
        finally:
            cls.now.graph = None


class Stream:
    """In place of ``torch.cuda.Stream``."""

    def wait_stream(self, other: Stream) -> None:
        pass

    def is_capturing(self) -> bool:
        return Recording.graph() is not None


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Computes one operation of torch on the processor, if CUDA would have computed it."""
    tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
    ours = [tensor for tensor in tensors if isinstance(tensor, OnGpu)]
    host = [tensor for tensor in tensors if not isinstance(tensor, OnGpu)]
    on_gpu, device = bool(ours), kwargs.get("device")
    if device is not None:
        on_gpu = torch.device(device).type in ("cuda", "meta")
        kwargs = {**kwargs, "device": "cpu"}
    if (generator := kwargs.get("generator")) is not None and on_gpu != (generator.device.type == "cuda"):
        raise DeviceError(f"{func} expects another device than the generator's, {generator.device}")
    if ours and host and func not in COPIES:
        indices = tree_flatten(args[1])[0] if func in INDEXED else []
        wrong = [tensor for tensor in host if tensor.dim() and not any(tensor is index for index in indices)]
        if wrong:
            shapes = [[tuple(tensor.shape) for tensor in some] for some in (wrong, ours)]
            raise DeviceError(
                f"expected all tensors of {func} on one device, but {shapes[0]} are on the host, {shapes[1]} on the GPU"
            )
    graph = Recording.graph()
    copied = any(tensor.dim() or func in COPIES for tensor in host) or (on_gpu != bool(ours) and bool(tensors))
    if graph is not None and (copied or func in WAITING):
        raise DeviceError(f"operation not permitted when stream is capturing: {func}")
    unwrapped = tree_map_only(OnGpu, lambda tensor: tensor.numbers, (args, kwargs))
    outputs = func(*unwrapped[0], **unwrapped[1])
    if graph is not None:
        graph.recorded.append((func, *unwrapped, outputs))
    if func in (aten.copy_.default, aten._foreach_copy_.default):
        return args[0]
    known = {id(tensor.numbers): tensor for tensor in ours} | {id(tensor): tensor for tensor in host}
    return tree_map_only(Tensor, lambda t: known.get(id(t), OnGpu(t) if on_gpu else t), outputs)


class Operations(TorchDispatchMode):
    """Sees every operation, also those without a tensor among their arguments."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class Calls(TorchFunctionMode):
    """Rewrites those calls that torch's C++ would bring to a real device, or to ``meta``, before operations begin."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.device:
            return func(*args, **(kwargs or {}))
        args, kwargs = [_numbered(arg) for arg in args], {k: _numbered(v) for k, v in (kwargs or {}).items()}
        first = args[0] if args else None
        if func is torch.Tensor.to and len(args) > 1 and isinstance(args[1], Tensor):
            args[1:2] = [args[1].device, args[1].dtype]
        elif func is torch.Tensor.cuda:
            return args[0].to(CUDA)
        elif func is torch.Tensor.new_tensor and isinstance(first, OnGpu):
            return torch.tensor(args[1], dtype=kwargs.get("dtype", first.dtype)).to(CUDA)
        elif func in (torch.tensor, torch.as_tensor, torch.asarray) and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        elif func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and isinstance(first, OnGpu):
            args[1] = tuple(map(_listed, args[1])) if isinstance(args[1], tuple) else _listed(args[1])
        return func(*args, **kwargs)


def _numbered(value: Any) -> Any:
    if (isinstance(value, torch.device) and value.type == "cuda") or (isinstance(value, str) and value == "cuda"):
        return CUDA
    return value


def _listed(index: Any) -> Any:
    """A list that is an index is copied to the GPU."""
    return torch.tensor(index).to(CUDA) if isinstance(index, list) else index


@contextlib.contextmanager
def _modes() -> Iterator[None]:
    # Without a thread per device, as there is no device.
    with torch.autograd.set_multithreading_enabled(False), Calls(), Operations():
        yield


@contextlib.contextmanager
def _without_inference_mode() -> Iterator[None]:
    """Inference tensors have no version counter, which wrapped tensors need; gradients are off all the same."""

    def enter(self: Any) -> None:
        self.off = torch.no_grad() if self.mode else contextlib.nullcontext()
        self.off.__enter__()

    def leave(self: Any, *error: Any) -> None:
        self.off.__exit__(*error)

    mode, patched = torch.inference_mode, mock.patch.object
    with patched(mode, "__enter__", enter), patched(mode, "__exit__", leave):
        yield


@contextlib.contextmanager
def simulated_gpu() -> Iterator[None]:
    """While it is open, ``cuda`` is the simulated GPU, in every thread that starts meanwhile."""
    start, profile = threading.Thread.run, torch.profiler.profile.__init__

    def run_thread(self: threading.Thread) -> None:
        with _modes():
            start(self)

    def profile_cpu(self: Any, *args: Any, activities: Any = None, **kwargs: Any) -> None:
        profile(self, *args, activities=[torch.profiler.ProfilerActivity.CPU], **kwargs)

    functions = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "is_bf16_supported": lambda *_, **__: True,
        "is_current_stream_capturing": lambda: Recording.graph() is not None,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda _: None,
        "get_device_name": lambda *_: "simulated",
        "get_device_capability": lambda *_: (9, 0),
        "synchronize": lambda *_: None,
        "empty_cache": lambda: None,
        "memory_allocated": lambda *_: 1,
        "manual_seed_all": lambda _: None,
        "get_rng_state": lambda *_: torch.get_rng_state(),
        "set_rng_state": lambda *_: None,
        "current_stream": lambda *_: Stream(),
        "stream": lambda _: contextlib.nullcontext(),
        "Stream": Stream,
        "CUDAGraph": Graph,
        "graph": Recording.of,
    }
    replaced = torch.__future__.get_overwrite_module_params_on_conversion()
    with contextlib.ExitStack() as stack:
        for name, function in functions.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, function))
        stack.enter_context(mock.patch.object(torch.accelerator, "current_stream", lambda *_: Stream()))
        stack.enter_context(_without_inference_mode())
        stack.enter_context(mock.patch.object(torch.profiler.profile, "__init__", profile_cpu))
        stack.enter_context(mock.patch.object(threading.Thread, "run", run_thread))
        # Parameters that were moved are new ones: the old have storage, and the new have not.
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, replaced)
        stack.enter_context(_modes())
        yield


def any_gpu() -> contextlib.AbstractContextManager[None]:
    """A GPU; where there is none, the simulated one."""
    return contextlib.nullcontext() if torch.cuda.is_available() else simulated_gpu()
