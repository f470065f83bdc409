"""A dry run of a piece of work shows what memory it takes without computing it: no GPU, no weights, no data.

Everything runs on fake CPU tensors that stand for the card's, with CUDA's autocast. Fake tensors on "cuda" are no way:
without a GPU their backward pass fails, and PyTorch's CPU builds, which laptops have, do not know the device at all.
So a tensor that is moved from the card to the computer's memory still counts, unless it is made `on_host`.
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
    """What the work takes depends on the data, or on an operator that has no dry run."""


def is_dry_run(tensor: torch.Tensor) -> bool:
    """Whether a tensor has no values because this is a dry run; for the one place a training reads them."""
    return isinstance(tensor, FakeTensor)


def run_dry(workload: Callable[[], None]) -> Peak:
    """The memory peak of `workload()`, which builds its networks and inputs itself.

    Raises `NotPredictable` where the dry run fails, whatever the reason, and lets a `UserError` pass.
    """
    tracker = MemoryTracker()
    try:
        with cuda_autocast(), FakeTensorMode(allow_non_fake_inputs=True), _modules_keep_fake_parameters():
            with tracker, tracker.naming_layers():
                workload()
    except DEPENDS_ON_DATA as error:
        raise NotPredictable(f"what it does depends on the data ({_first_line(error)})") from error
    except UnsupportedOperatorException as error:
        raise NotPredictable(f"an operator has no dry run ({_first_line(error)})") from error
    except UserError:
        raise
    except Exception as error:  # tensors have no values to print or to make arrays of, and each way says so differently
        raise NotPredictable(f"the dry run fails ({type(error).__name__}: {_first_line(error)})") from error
    return tracker.peak()


def on_host() -> AbstractContextManager[None]:
    """Context: tensors made inside lie in the computer's memory and do not count. Does nothing outside a dry run."""
    mode = _get_current_dispatch_mode()
    return mode.on_host() if isinstance(mode, MemoryTracker) else nullcontext()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def _modules_keep_fake_parameters() -> Iterator[None]:
    """`nn.Module.to` swaps fake parameters in place, which fails for tensors that are being tracked: set them anew."""
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
