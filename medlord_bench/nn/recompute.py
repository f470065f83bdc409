"""Gradient checkpointing: less memory for another forward pass."""

from __future__ import annotations

from typing import Any

from torch.utils.checkpoint import checkpoint


def run_checkpointed(block: Any, *inputs: Any) -> Any:
    """`block(*inputs)`, with its activations recomputed in the backward pass (there is no dropout to replay)."""
    return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
