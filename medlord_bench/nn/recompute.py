"""Gradient checkpointing: less memory at the cost of a second forward pass."""

from __future__ import annotations

from typing import Any

from torch.utils.checkpoint import checkpoint


def run_checkpointed(block: Any, *inputs: Any) -> Any:
    """`block(*inputs)`; the backward pass recomputes its activations (without random state: there is no dropout)."""
    return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
