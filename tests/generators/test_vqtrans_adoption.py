"""Weights instead of training: MONAI's VQVAE and DecoderOnlyTransformer, and our own, on a phantom of 32x32x16."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.nets import VQVAE, DecoderOnlyTransformer

from medlord_bench.checks.contract.common import phantom
from medlord_bench.contracts import Request, Run, Volume
from medlord_bench.engine.prepared import StoredCohort
from medlord_bench.errors import MissingError, UserError
from medlord_bench.generators.vqtrans.configs import VQTransConfig
from medlord_bench.generators.vqtrans.plugin import VQTrans
from medlord_bench.generators.vqtrans.presets import PRESETS
from medlord_bench.generators.vqtrans.transformer import load_transformer
from medlord_bench.nn.intensity import scale_hu
from medlord_bench.util.progress import SilentProgress

CODES, LENGTH = 20, 4 * 4 * 2  # 8 times smaller a side


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("vqtrans")
    return Run(device="cpu", seed=0, progress=SilentProgress(), log=logging.getLogger("test"), scratch=folder)


@pytest.fixture(scope="module")
def cohort(context: Run) -> StoredCohort:
    return phantom(context, context.scratch / "phantom")[0]


def vqvae(codes: int = CODES, seed: int = 0) -> VQVAE:
    torch.manual_seed(seed)
    down, up = ((2, 4, 1, 1),) * 3, ((2, 4, 1, 1, 0),) * 3
    net = VQVAE(3, 1, 1, channels=(8, 8, 16), num_res_layers=1, num_res_channels=(8, 8, 16), downsample_parameters=down,
                upsample_parameters=up, num_embeddings=codes, embedding_dim=4, ddp_sync=False)  # fmt: skip
    net.quantizer.quantizer.embedding.weight.data.mul_(0.05)  # near what an untrained encoder gives
    return net.eval()


def transformer(codes: int = CODES, length: int = LENGTH, dim: int = 16) -> DecoderOnlyTransformer:
    torch.manual_seed(1)
    return DecoderOnlyTransformer(codes + 1, length, dim, 2, 2).eval()


def files(folder: Path, wrapped: str | None = None, **nets: torch.nn.Module) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, net in nets.items():
        state = net.state_dict()
        torch.save({wrapped: state, "epoch": 3} if wrapped else state, folder / f"{name}.pt")
    return folder


def plugin() -> VQTrans:
    return VQTrans(VQTransConfig.model_validate(PRESETS["smoke"]))


def adopted(
    source: Path, cohort: StoredCohort, run: Run, out: Path, generator: VQTrans | None = None
) -> dict[str, Path]:
    weights: dict[str, Path] = {}
    generator = generator or plugin()
    for stage in generator.stages():
        inputs = {need: weights[need] for need in stage.needs}
        weights[stage.name] = generator.adopt(stage, source, cohort, inputs, out / stage.name, run)
    return weights


# -------------------------------------------------------------------------------------------------------------- MONAI's
@pytest.mark.parametrize("wrapped", [None, "state_dict", "model"])
def test_monais_weights_sample_and_say_what_was_assumed(
    wrapped: str | None, cohort: StoredCohort, context: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = files(tmp_path / "theirs", wrapped, my_vqvae=vqvae(), my_transformer=transformer())
    weights = adopted(source, cohort, context, tmp_path)
    described = json.loads((weights["transformer"] / "model.json").read_text())["config"]
    assert described["converted_from"]["file"] == "my_transformer.pt"
    assert described["assumed"] == {"heads": 2, "order": "raster", "grid": [32, 32, 16], "fit": "resize"}
    assert "heads 2; order raster" in caplog.text
    requests = [Request(i, 7 + i, cohort.protocol.grid) for i in range(2)]
    first, second = plugin().sample(weights, requests, context)
    assert isinstance(first, Volume) and isinstance(second, Volume)
    assert first.shape == (32, 32, 16) and not np.array_equal(first.hu, second.hu)


def test_monais_transformer_has_the_logits_it_had(cohort: StoredCohort, context: Run, tmp_path: Path) -> None:
    theirs = transformer()
    source = files(tmp_path / "theirs", vqvae=vqvae(), transformer=theirs)
    net = load_transformer(adopted(source, cohort, context, tmp_path)["transformer"]).net
    tokens = torch.randint(CODES + 1, (2, LENGTH))
    with torch.no_grad():
        torch.testing.assert_close(net.logits(tokens), theirs(tokens), atol=1e-5, rtol=0)


def test_monais_vqvae_reconstructs_what_it_did(cohort: StoredCohort, context: Run, tmp_path: Path) -> None:
    theirs = vqvae()
    weights = adopted(files(tmp_path / "a", vqvae=theirs, transformer=transformer()), cohort, context, tmp_path)
    case = cohort.ids("test")[0]
    (found,) = plugin().reconstruct(weights, iter([(case, cohort.volume(case))]), context)
    low, high = cohort.protocol.grid.hu_window
    with torch.no_grad():
        image = theirs(scale_hu(cohort.volume(case).hu, (low, high))[None, None])[0][0, 0].clamp(-1, 1)
    assert isinstance(found, Volume)
    expected = (image.numpy() + 1) / 2 * (high - low) + low
    assert np.abs(found.hu - expected).max() <= 0.51
    assert np.ptp(found.hu) > 0


# ------------------------------------------------------------------------------------------------------------------ ours
def test_our_own_weights_give_the_same_bytes_again(cohort: StoredCohort, context: Run, tmp_path: Path) -> None:
    source = files(tmp_path / "theirs", vqvae=vqvae(), transformer=transformer())
    weights = adopted(source, cohort, context, tmp_path / "first")
    for stage in ("autoencoder", "transformer"):
        shutil.copytree(weights[stage], tmp_path / "ours" / stage)
    again = adopted(tmp_path / "ours", cohort, context, tmp_path / "second")
    requests = [Request(0, 7, cohort.protocol.grid)]
    (a,), (b,) = (list(plugin().sample(used, requests, context)) for used in (weights, again))
    assert isinstance(a, Volume) and isinstance(b, Volume)
    assert np.array_equal(a.hu, b.hu)


# --------------------------------------------------------------------------------------------- refused, in one line
def changed(state: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {name: value for name, value in (state | more).items() if value is not None}


@pytest.mark.parametrize(
    ("nets", "message"),
    [
        ({"vqvae": vqvae(), "transformer": transformer(codes=CODES + 3)}, "on 23 codes, the autoencoder has 20"),
        ({"vqvae": vqvae(), "transformer": transformer(length=40)}, r"for 40 tokens, the grid \(32, 32, 16\) has 32"),
        ({"vqvae": vqvae(), "transformer": transformer(dim=16).blocks}, "not a transformer in MONAI's layout"),
        ({"vqvae": transformer(), "transformer": transformer()}, "not a 3D VQ-VAE"),
        ({"vqvae": vqvae(), "old_vqvae": vqvae(), "transformer": transformer()}, "2 weights for the stage autoencoder"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(
    nets: dict[str, torch.nn.Module], message: str, cohort: StoredCohort, context: Run, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as error:
        adopted(files(tmp_path / "theirs", **nets), cohort, context, tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b"PK\x03\x04 cut off"), "not a checkpoint of plain tensors"),
        (lambda path: torch.save({"epoch": 3}, path), "no state dict"),
        (lambda path: torch.save(changed(transformer().state_dict(), **{"to_logits.bias": None}), path),
         "missing tensor 'to_logits.bias'"),
        (lambda path: torch.save(changed(transformer().state_dict(), spare=torch.zeros(1)), path),
         "surplus tensor 'spare'"),
        (lambda path: torch.save(transformer(dim=16).state_dict() | {"token_embeddings.weight": torch.zeros(21, 15)},
                                 path), "width 15, expected at least one, and a multiple of heads = 2"),
        (lambda path: None, "nothing for the stage transformer"),
    ],
)  # fmt: skip
def test_a_transformer_that_is_damaged_or_absent_is_one_line_that_names_it(
    write: Any, message: str, cohort: StoredCohort, context: Run, tmp_path: Path
) -> None:
    source = files(tmp_path / "theirs", vqvae=vqvae())
    write(source / "transformer.pt")
    with pytest.raises(match=message) as error:
        adopted(source, cohort, context, tmp_path)
    assert "\n" not in str(error.value) and str(source) in str(error.value)
    assert isinstance(error.value, MissingError) == ("nothing for" in message)


def test_ours_of_another_grid_or_with_a_damaged_description_is_refused(
    cohort: StoredCohort, context: Run, tmp_path: Path
) -> None:
    source = files(tmp_path / "theirs", vqvae=vqvae(), transformer=transformer())
    weights = adopted(source, cohort, context, tmp_path / "first")
    for stage in ("autoencoder", "transformer"):
        shutil.copytree(weights[stage], tmp_path / "ours" / stage)
    elsewhere = VQTrans(VQTransConfig.model_validate({**PRESETS["smoke"], "grid": (16, 32, 32)}))
    with pytest.raises(UserError, match=r"trained on the grid .*32, 32, 16.*asks for \(16, 32, 32\)"):
        adopted(tmp_path / "ours", cohort, context, tmp_path / "second", elsewhere)
    description = tmp_path / "ours" / "transformer" / "model.json"
    found = json.loads(description.read_text())
    del found["config"]["codes"]
    description.write_text(json.dumps(found))
    with pytest.raises(UserError, match="expected the fields net, codes, positions and shape"):
        adopted(tmp_path / "ours", cohort, context, tmp_path / "third")
