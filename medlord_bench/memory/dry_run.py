"""A dry run of a piece of work determines its memory without computing it: no GPU, no weights, no data.

All code runs on fake CPU tensors that represent those of the card, with CUDA's autocast. Fake tensors on "cuda" do not
work: without a GPU their backward pass fails, and PyTorch's CPU builds, as on laptops, do not support the device at
all. A tensor that is moved from the card to host memory still counts, unless it is made `on_host`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.utils._python_dispatch import _get_current_dispatch_mode

from medlord_bench.errors import UserError
from medlord_bench.memory.emulation import cuda_autocast
from medlord_bench.memory.tracker import MemoryTracker, Peak

DEPENDS_ON_DATA = (DataDependentOutputException, DynamicOutputShapeException)


class NotPredictable(Exception):
    """The memory of the work depends on the data, or on an operator that has no dry run."""


def is_dry_run(tensor: torch.Tensor) -> bool:
    """Whether a tensor has no values because of a dry run; for the one place where a training reads values."""
    return isinstance(tensor, FakeTensor)


def run_dry(workload: Callable[[], None]) -> Peak:
    """The memory peak of `workload()`, which builds its networks and inputs itself.

    Raises `NotPredictable` if the dry run fails for any reason; a `UserError` is passed on.
    """
    tracker = MemoryTracker()
    try:
        with cuda_autocast(), FakeTensorMode(allow_non_fake_inputs=True), _modules_keep_fake_parameters():
            with tracker, tracker.naming_layers():
                workload()
    except DEPENDS_ON_DATA as error:
        raise NotPredictable(f"its work depends on the data ({_first_line(error)})") from error
    except UnsupportedOperatorException as error:
        raise NotPredictable(f"an operator has no dry run ({_first_line(error)})") from error
    except UserError:
        raise
    except Exception as error:  # fake tensors cannot be printed or converted to arrays; the error types differ
        raise NotPredictable(f"the dry run fails ({type(error).__name__}: {_first_line(error)})") from error
    return tracker.peak()


def on_host() -> AbstractContextManager[None]:
    """Context: tensors created inside are in host memory and do not count. Does nothing outside a dry run."""
    mode = _get_current_dispatch_mode()
    return mode.on_host() if isinstance(mode, MemoryTracker) else nullcontext()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def _modules_keep_fake_parameters() -> Iterator[None]:
    """`nn.Module.to` swaps fake parameters in place, which fails for tracked tensors: assign new ones instead."""
    original = nn.Module._apply

    def apply(self: nn.Module, fn: Callable[[Any], Any], recurse: bool = True) -> nn.Module:
        for module in self.modules() if recurse else [self]:
            for name, parameter in module._parameters.items():
                if parameter is not None and (applied := fn(parameter.detach())).dtype != parameter.dtype:
                    module._parameters[name] = nn.Parameter(applied, parameter.requires_grad)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = fn(buffer)
        return self

    nn.Module._apply = apply  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module._apply = original  # type: ignore[method-assign]
