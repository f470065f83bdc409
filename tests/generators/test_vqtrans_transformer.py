"""VQ-Trans's transformer: MONAI's function of the same weights, without its masks, and with a cache that changes nothing."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import DecoderOnlyTransformer
from torch import Tensor

from medlord_bench.generators.vqtrans.configs import TransformerNetConfig
from medlord_bench.generators.vqtrans.transformer import Transformer, chunked_cross_entropy

CODES, LENGTH = 40, 48
NET = TransformerNetConfig(dim=32, depth=3, heads=4)


def monais(seed: int = 0) -> DecoderOnlyTransformer:
    torch.manual_seed(seed)
    return DecoderOnlyTransformer(CODES + 1, LENGTH, NET.dim, NET.depth, NET.heads).eval()


def of_monais(theirs: DecoderOnlyTransformer, config: TransformerNetConfig = NET) -> Transformer:
    """Ours with its weights."""
    net = Transformer(config, CODES, LENGTH)
    net.load_state_dict({name: value for name, value in theirs.state_dict().items() if "causal_mask" not in name})
    return net.eval()


def some_tokens(samples: int = 3, length: int = LENGTH) -> Tensor:
    """(B, n), begun as every sequence is."""
    tokens = torch.randint(CODES, (samples, length), generator=torch.Generator().manual_seed(1))
    tokens[:, 0] = CODES
    return tokens


@pytest.mark.parametrize("attention", ["auto", "math"])
def test_logits_are_monais_with_the_same_weights(attention: str) -> None:
    theirs, tokens = monais(), some_tokens()
    ours = of_monais(theirs, NET.model_copy(update={"attention": attention}))
    with torch.no_grad():
        found, expected = ours.logits(tokens), theirs(tokens)
    assert float(expected.std()) > 0.1
    assert float((found - expected).abs().max()) < 1e-5


def test_gradients_are_monais_with_the_same_weights() -> None:
    theirs, sequences = monais(), some_tokens()[:, 1:]
    ours = of_monais(theirs)
    ours(sequences, chunk=17).backward()
    fed = torch.cat([torch.full_like(sequences[:, :1], CODES), sequences[:, :-1]], dim=1)
    torch.nn.functional.cross_entropy(theirs(fed).flatten(0, 1), sequences.flatten()).backward()
    expected = {name: value.grad for name, value in theirs.named_parameters() if value.grad is not None}
    assert len(expected) > 30
    for name, value in ours.named_parameters():
        if value.requires_grad:
            torch.testing.assert_close(value.grad, expected.pop(name), atol=1e-6, rtol=1e-4)
    assert not expected, "a parameter that MONAI trains is not trained here"


def test_no_state_grows_with_the_square_of_the_length() -> None:
    """MONAI keeps a full mask for each block, also in its checkpoints: 12.9 GiB at 12,544 tokens and 22 blocks."""
    assert any(value.numel() >= LENGTH**2 for value in monais().state_dict().values())
    short, long = (Transformer(NET, CODES, length) for length in (LENGTH, 2 * LENGTH))
    assert not list(long.buffers())
    grown = [name for name, value in long.state_dict().items() if value.shape != short.state_dict()[name].shape]
    assert grown == ["position_embeddings.embedding.weight"]


@pytest.mark.parametrize("steps", [[1] * LENGTH, [7, 1, 1, LENGTH - 9], [LENGTH]], ids=["one by one", "parts", "whole"])
def test_tokens_fed_in_parts_with_a_cache_have_the_logits_of_the_whole(steps: list[int]) -> None:
    net, tokens = of_monais(monais()), some_tokens()
    cache, start, found = net.cache(len(tokens), LENGTH), 0, []
    with torch.no_grad():
        for n in steps:
            found.append(net.logits(tokens[:, start : start + n], cache, start))
            start += n
        expected = net.logits(tokens)
    assert start == LENGTH
    assert float((torch.cat(found, dim=1) - expected).abs().max()) < 1e-5


def test_no_logit_sees_a_later_token() -> None:
    net, tokens = of_monais(monais()), some_tokens()
    changed = tokens.clone()
    changed[:, 20:] = (changed[:, 20:] + 1) % CODES
    with torch.no_grad():
        before, after = net.logits(tokens), net.logits(changed)
    assert torch.equal(before[:, :20], after[:, :20])
    assert not torch.allclose(before[:, 20:], after[:, 20:])


@pytest.mark.parametrize("chunk", [1, 7, 144, 1000])
def test_chunked_cross_entropy_is_the_plain_one_in_value_and_gradients(chunk: int) -> None:
    generator = torch.Generator().manual_seed(2)
    head = torch.nn.Linear(16, CODES + 1).double()
    hidden = torch.randn(3, LENGTH, 16, dtype=torch.float64, generator=generator)
    targets = torch.randint(CODES, (3, LENGTH), generator=generator)
    found, expected = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    ours = chunked_cross_entropy(found, head, targets, chunk)
    plain = torch.nn.functional.cross_entropy(head(expected).flatten(0, 1), targets.flatten())
    assert float(ours.detach()) == pytest.approx(float(plain.detach()), rel=1e-6)  # it adds in float32
    parameters = list(head.parameters())
    for a, b in zip(
        torch.autograd.grad(ours, [found, *parameters]),
        torch.autograd.grad(plain, [expected, *parameters]),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-8, rtol=1e-4)
    with torch.no_grad():
        assert float(chunked_cross_entropy(found, head, targets, chunk)) == pytest.approx(
            float(plain.detach()), rel=1e-6
        )


def test_recomputed_activations_change_no_gradient() -> None:
    theirs, sequences = monais(), some_tokens()[:, 1:]
    nets = [of_monais(theirs, NET.model_copy(update={"checkpointing": recomputed})) for recomputed in (False, True)]
    for net in nets:
        net(sequences, chunk=64).backward()
    for (name, plain), (_, recomputed) in zip(*(net.named_parameters() for net in nets), strict=True):
        if plain.requires_grad:
            assert torch.equal(plain.grad, recomputed.grad), name  # type: ignore[arg-type]
