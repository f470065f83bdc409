"""Drawing codes: MONAI's where it is greedy, the distribution that was asked for, whoever else is drawn, stopped or not."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.inferers import VQVAETransformerInferer
from monai.networks.nets import VQVAE, DecoderOnlyTransformer
from monai.utils.ordering import Ordering
from numpy.typing import NDArray
from torch import Tensor

from medlord_bench.errors import Stopped
from medlord_bench.generators.vqtrans import drawing
from medlord_bench.generators.vqtrans.configs import SamplingConfig, TransformerNetConfig
from medlord_bench.generators.vqtrans.drawing import TokenFile, choose, draw, draw_saved, gumbel, in_precision
from medlord_bench.generators.vqtrans.transformer import Transformer
from medlord_bench.util import seeds

CODES, LENGTH = 24, 60
NOTHING = torch.zeros(1, 0, dtype=torch.int64)
PLAIN = SamplingConfig()


def network(precision: str = "fp64") -> Transformer:
    torch.manual_seed(3)
    net = Transformer(TransformerNetConfig(dim=32, depth=2, heads=4), CODES, LENGTH).eval().requires_grad_(False)
    in_precision(net, SamplingConfig(tokens_precision=precision))
    return net


def drawn(net: Transformer, *seeds_of: int, config: SamplingConfig = PLAIN) -> Tensor:
    return draw(net, seeds_of, LENGTH, config, NOTHING.repeat(len(seeds_of), 1))


# ------------------------------------------------------------------------------------------------------ against MONAI
class _Kept(VQVAE):
    """Keeps the indices that the inferer would decode."""

    def decode_samples(self, embedding_indices: Tensor) -> Tensor:
        return embedding_indices


@pytest.mark.parametrize("precision", ["fp64", "fp32"])
def test_greedy_tokens_are_those_of_monais_inferer(precision: str) -> None:
    shape = (5, 4, 3)
    torch.manual_seed(5)
    theirs = DecoderOnlyTransformer(CODES + 1, LENGTH, 32, 2, 4).eval()
    theirs.to_logits.bias.data[CODES] = -20  # its sampler has no code left where the first token is the likeliest
    vqvae = _Kept(3, 1, 1, channels=(4,), num_res_layers=0, num_res_channels=(4,),
                  downsample_parameters=((2, 4, 1, 1),), upsample_parameters=((2, 4, 1, 1, 0),),
                  num_embeddings=CODES, embedding_dim=2)  # fmt: skip
    raster = Ordering("raster_scan", 3, (1, *shape))
    begin = torch.full((1, 1), CODES)
    expected = VQVAETransformerInferer().sample(shape, begin, vqvae, theirs, raster, top_k=1, verbose=False)
    ours = Transformer(TransformerNetConfig(dim=32, depth=2, heads=4), CODES, LENGTH).eval()
    ours.load_state_dict({name: value for name, value in theirs.state_dict().items() if "causal_mask" not in name})
    greedy = SamplingConfig(top_k=1, tokens_precision=precision)
    in_precision(ours, greedy)
    found = drawn(ours, 0, config=greedy)
    assert len(found.unique()) > 3
    assert torch.equal(found.view(1, *shape), expected)


# -------------------------------------------------------------------------------------------------- the distribution
def probabilities(
    logits: NDArray[np.float64], temperature: float, top_k: int | None, top_p: float | None
) -> NDArray[np.float64]:
    """What `choose` should draw from, one code after the other: NumPy, by the definitions."""
    order = sorted(range(len(logits)), key=lambda code: -logits[code])
    weights = {code: float(np.exp(logits[code] / temperature)) for code in order[:top_k]}
    kept: dict[int, float] = {}
    for code in order[:top_k]:
        if top_p is None or sum(kept.values()) < top_p * sum(weights.values()):
            kept[code] = weights[code]
    return np.array([kept.get(code, 0.0) / sum(kept.values()) for code in range(len(logits))])


GRID = list(itertools.product([0.5, 1.0, 2.0], [None, 1, 3, 100], [None, 0.3, 0.9, 1.0]))


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), GRID)
def test_codes_are_drawn_with_the_probabilities_of_temperature_top_k_and_top_p(
    temperature: float, top_k: int | None, top_p: float | None
) -> None:
    n, logits = 20_000, np.random.default_rng(7).normal(0, 1.5, size=8)
    expected = probabilities(logits, temperature, top_k, top_p)
    noise = torch.cat([gumbel(seed, 0, 8) for seed in range(-(-n // drawing.TOKENS_PER_BLOCK))])[:n]
    config = SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p)
    codes = choose(torch.from_numpy(logits).repeat(n, 1), noise, config)
    found = np.bincount(codes.numpy(), minlength=8) / n
    assert not found[expected == 0].any(), "a code was drawn that is cut off"
    error = np.sqrt(expected * (1 - expected) / n)
    assert (np.abs(found - expected) <= 4.5 * error + 1e-12).all()


def test_noise_is_standard_gumbel() -> None:
    """Mean is Euler's constant, variance pi^2 / 6, and P(x <= 0) = 1 / e."""
    noise = torch.cat([gumbel(seed, 0, 64) for seed in range(8)]).flatten()
    n = len(noise)
    assert float(noise.mean()) == pytest.approx(0.5772156649, abs=5 * (np.pi**2 / 6 / n) ** 0.5)
    assert float(noise.var()) == pytest.approx(np.pi**2 / 6, rel=0.03)
    assert float((noise <= 0).double().mean()) == pytest.approx(np.exp(-1), abs=5 * 0.5 / n**0.5)


def test_the_token_that_begins_a_sequence_is_never_drawn_and_takes_no_probability_from_codes() -> None:
    net = network()
    free = drawn(net, *range(4), config=SamplingConfig(top_k=1))
    net.to_logits.bias.data[CODES] = 50  # it would have all the probability, and the only place of top_k
    assert int(drawn(net, *range(4)).max()) < CODES
    assert torch.equal(drawn(net, *range(4), config=SamplingConfig(top_k=1)), free)


# -------------------------------------------------------------------------------------- what a sequence depends on
def test_a_sequence_depends_on_its_seed_and_on_no_other_of_its_batch() -> None:
    net = network()
    together = drawn(net, 1, 2, 3, 4, 5)
    for row, seed in enumerate((1, 2, 3, 4, 5)):
        assert torch.equal(drawn(net, seed)[0], together[row])
    assert torch.equal(drawn(net, 5, 4, 3, 2, 1), together.flip(0))
    assert len({tuple(sequence.tolist()) for sequence in together}) == 5


def test_rounding_that_depends_on_the_batch_is_ten_digits_below_what_decides() -> None:
    """Gaps between the best two codes are of the order of 1; a sequence has 12,544 of them."""
    net = network()
    tokens = torch.randint(CODES, (16, LENGTH), generator=torch.Generator().manual_seed(1))
    alone = torch.cat([net.logits(row[None]) for row in tokens])
    assert float((net.logits(tokens) - alone).abs().max()) < 1e-11
    cache = net.cache(16, LENGTH)
    cached = torch.cat([net.logits(tokens[:, n : n + 1], cache, n) for n in range(LENGTH)], dim=1)
    assert float((cached - alone).abs().max()) < 1e-11


def test_noise_of_a_place_is_the_same_wherever_drawing_went_on() -> None:
    net, whole = network(), drawn(network(), 11)
    for done in (0, 1, 37, LENGTH - 1, LENGTH):
        assert torch.equal(draw(net, [11], LENGTH, PLAIN, whole[:, :done]), whole)


@pytest.mark.parametrize("block", [7, 16, 256])
def test_a_stopped_drawing_goes_on_from_its_files_to_the_same_tokens(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped once in between, then killed without a word: what was saved last is gone on from."""
    monkeypatch.setattr(drawing, "TOKENS_PER_BLOCK", block)
    net, seeds_of = network(), [21, 22]
    whole = drawn(net, *seeds_of)
    files = [TokenFile(tmp_path / f"{seed}.safetensors") for seed in seeds_of]
    calls = itertools.count()
    with pytest.raises(Stopped, match=f"token 33 of {LENGTH}"):
        draw_saved(net, seeds_of, LENGTH, PLAIN, files, lambda: next(calls) == 33)
    assert torch.equal(torch.stack([file.load() for file in files]), whole[:, :33])

    class Killed(BaseException):
        pass

    def kill() -> bool:
        if next(calls) < 60:
            return False
        raise Killed

    with pytest.raises(Killed):
        draw_saved(net, seeds_of, LENGTH, PLAIN, files, kill)
    kept = files[0].load()
    assert 33 <= len(kept) < LENGTH
    files[1].save(files[1].load()[:20])  # as if only the first had been saved: both go on from the shorter
    asked: list[int] = []
    logits = net.logits
    monkeypatch.setattr(net, "logits", lambda tokens, cache, start: asked.append(start) or logits(tokens, cache, start))
    assert torch.equal(draw_saved(net, seeds_of, LENGTH, PLAIN, files, lambda: False), whole)
    assert asked == list(range(20, LENGTH)), "what was saved was drawn again"
    assert torch.equal(torch.stack([file.load() for file in files]), whole)


def test_a_finished_file_is_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, file = network(), TokenFile(tmp_path / "one.safetensors")
    whole = draw_saved(net, [1], LENGTH, PLAIN, [file], lambda: False)
    monkeypatch.setattr(net, "hidden", None)
    assert torch.equal(draw_saved(net, [1], LENGTH, PLAIN, [file], lambda: False), whole)


def test_noise_comes_from_the_seed_the_place_and_nothing_else() -> None:
    assert torch.equal(gumbel(1, 0, 9), gumbel(1, 0, 9))
    others = [gumbel(1, 1, 9), gumbel(2, 0, 9)]
    assert not any(torch.equal(gumbel(1, 0, 9), other) for other in others)
    torch.rand(3)  # the global state has no part in it
    uniform = torch.rand(drawing.TOKENS_PER_BLOCK, 9, dtype=torch.float64, generator=seeds.torch_rng(1, "token", 0))
    np.testing.assert_allclose(gumbel(1, 0, 9).numpy(), -np.log(-np.log(uniform.numpy())), rtol=1e-12)
