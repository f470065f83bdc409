"""Speed and equality of the codes of one volume sampled by VQ-Trans, against MONAI's sampler.

    python benchmarks/vqtrans_sampling.py [--json] [--quick]

The bench caches keys and values of earlier tokens and computes one token at a time, in float64 (the default) and in
float32. The peer is `monai.inferers.VQVAETransformerInferer.sample`, which recomputes the whole sequence for every
token in float32. Both draw 1,024 tokens greedily (top_k = 1) with the same random weights, one after the other in one
process, without decoding. `--quick` draws 128 tokens and has no target for speed. The exit code is 1 if a target is
missed.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import torch
from monai.inferers import VQVAETransformerInferer
from monai.networks.nets import DecoderOnlyTransformer
from monai.utils.ordering import Ordering
from targets import check, concluded
from torch import Tensor

from medlord_bench.generators.vqtrans.configs import SamplingConfig, TransformerNetConfig
from medlord_bench.generators.vqtrans.drawing import draw, in_precision
from medlord_bench.generators.vqtrans.transformer import Transformer

CODES, DIM, DEPTH, HEADS = 256, 128, 6, 8


class Undecoded:
    """The interface of an autoencoder that the peer requires. It returns the codes without decoding."""

    num_embeddings = CODES

    def decode_samples(self, indices: Tensor) -> Tensor:
        return indices


def weights(length: int) -> DecoderOnlyTransformer:
    """Random weights. The start token, which is not a code, gets a low logit: otherwise the peer may find no code."""
    torch.manual_seed(0)
    net = DecoderOnlyTransformer(CODES + 1, length, DIM, DEPTH, HEADS).eval()
    net.to_logits.bias.data[CODES] = -20
    return net


def monais(net: DecoderOnlyTransformer, shape: tuple[int, int, int]) -> tuple[Tensor, float]:
    start = time.perf_counter()
    begin, order = torch.full((1, 1), CODES), Ordering("raster_scan", 3, (1, *shape))
    codes = VQVAETransformerInferer().sample(shape, begin, Undecoded(), net, order, top_k=1, verbose=False)
    return codes.flatten(), time.perf_counter() - start


def ours(net: DecoderOnlyTransformer, length: int, config: SamplingConfig) -> tuple[Tensor, float]:
    state = {name: value for name, value in net.state_dict().items() if not name.endswith("causal_mask")}
    mine = Transformer(TransformerNetConfig(dim=DIM, depth=DEPTH, heads=HEADS), CODES, length).eval()
    mine.load_state_dict(state)
    in_precision(mine, config)
    start = time.perf_counter()
    codes = draw(mine, [0], length, config, torch.zeros(1, 0, dtype=torch.int64))
    return codes.flatten(), time.perf_counter() - start


def measure(quick: bool) -> list[dict[str, Any]]:
    shape = (8, 8, 2) if quick else (16, 8, 8)
    length = shape[0] * shape[1] * shape[2]
    net = weights(length)
    checks = []
    expected, slow = monais(net, shape)
    print(f"{length} tokens, MONAI: {slow:.1f} s, {len(expected.unique())} different codes", file=sys.stderr)
    for precision in ("fp64", "fp32"):
        found, fast = ours(net, length, SamplingConfig(top_k=1, tokens_precision=precision))
        print(f"{length} tokens, VQ-Trans {precision}: {fast:.2f} s", file=sys.stderr)
        differing = int((found != expected).sum())
        checks.append(check(f"codes_differing_{precision}", differing, "= 0", differing == 0))
        target = 0 if quick else 20
        checks.append(check(f"speedup_{precision}", slow / fast, f">= {target}", slow >= target * fast))
    return checks


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")
    parser.add_argument("--quick", action="store_true", help="128 tokens, no target for speed")
    arguments = parser.parse_args()
    checks = measure(arguments.quick)
    return concluded(checks, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
