"""LPIPS of reconstructions against the package itself, and what is said where its backbone is not there."""

from __future__ import annotations

import dataclasses
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import ndimage
from torchvision import models

from medlord_bench.contracts import DataProtocol, Grid, Item, MetricInputs, Run
from medlord_bench.contracts.metrics import protocol_of
from medlord_bench.contracts.results import CaseRow, Score
from medlord_bench.errors import UserError
from medlord_bench.metrics.reconstruction import backbones, perceptual
from medlord_bench.metrics.reconstruction.lpips_metric import LPIPS, NEED, LPIPSConfig
from medlord_bench.metrics.reconstruction.similarity import body_mask
from medlord_bench.nn.pretrained import ENVIRONMENT
from medlord_bench.util.hashing import file_sha256
from medlord_bench.volumes.arrays import save_state

SHAPE = (44, 40, 36)
DATA = DataProtocol(
    name="toy",
    grid=Grid(shape=SHAPE),
    fit="crop-pad",
    split="by hand",
    split_sha256="0" * 64,
    counts={},
    masks="none",
)


@pytest.fixture(scope="module")
def random_alexnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AlexNet in torchvision's layout with random convolutions; its classifier, which LPIPS has no use for, is flat."""
    torch.manual_seed(0)
    state = models.alexnet(weights=None).state_dict()
    for name, tensor in state.items():
        if name.startswith("classifier"):
            state[name] = torch.zeros(1).expand(tensor.shape)
    path = tmp_path_factory.mktemp("torchvision") / "weights.pth"
    torch.save(state, path)
    return path


Plant = Callable[[Path], Path]


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Put a file where alex's backbone belongs, under a name that tells its sha256 as torchvision's names do."""
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "weights"))

    def put(source: Path) -> Path:
        monkeypatch.setitem(backbones.FILES, "alex", f"alexnet-owt-{file_sha256(source)[:8]}.pth")
        place = backbones.path_of("alex")
        place.parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copyfile(source, place))

    return put


def pair(seed: int = 0, blur: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """A reconstruction (blurred) and its image: a body with texture in air. int16, `SHAPE`."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    texture = ndimage.gaussian_filter(np.random.default_rng(seed).normal(0, 900, SHAPE), 1)
    real = np.where(x**2 + (y * 1.2) ** 2 + 0.2 * z < 0.7, 40 + texture, -1000).clip(-1024, 2500)
    made = ndimage.gaussian_filter(real, blur) if blur else real
    return made.astype(np.int16), real.astype(np.int16)


def items_of(folder: Path, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[Item]:
    made = []
    for i, images in enumerate(pairs):
        paths = [folder / f"{name}{i}.npy" for name in ("made", "real")]
        for path, image in zip(paths, images, strict=True):
            np.save(path, image)
        made.append(Item(f"c{i}", "reconstructions", paths[0], f"p{i}", reference=paths[1]))
    return made


def metric(**settings: object) -> LPIPS:
    return LPIPS(LPIPSConfig.model_validate(settings).for_data(DATA))


def reduced(run: Run, lpips: LPIPS, items: Sequence[Item]) -> tuple[dict[str, Score], list[CaseRow]]:
    """Extract and reduce; items without a path have failed."""
    states: Iterator[dict[str, np.ndarray]] = iter(lpips.extract([item for item in items if item.path], run))
    kept = []
    for item in items:
        path = None
        if item.path is not None:
            path = run.scratch / f"{item.id}.safetensors"
            save_state(path, next(states))
        kept.append(dataclasses.replace(item, path=path))
    found = list(lpips.reduce(MetricInputs("toy", "toy", DATA, {NEED: kept}), run))
    return {s.region: s for s in found if isinstance(s, Score)}, [r for r in found if isinstance(r, CaseRow)]


# ---------------------------------------------------------------------------------------------------------- the value
def test_value_is_the_package_s_over_upright_slices_of_three_planes(
    run: Run, tmp_path: Path, plant: Plant, random_alexnet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package finds the backbone by itself here, where torchvision would have put it."""
    from lpips import LPIPS as Package

    checkpoints = tmp_path / "home" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    shutil.copyfile(random_alexnet, checkpoints / "alexnet-owt-7be5be79.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = Package(net="alex", spatial=True, verbose=False)
    made, real = pair()
    body = body_mask(real, -500)

    def image(plane: np.ndarray) -> torch.Tensor:
        unit = (plane[::-1, ::-1].T.astype(np.float64).clip(-1000, 2000) + 1000) / 1500 - 1
        return torch.tensor(np.stack([unit] * 3)[None], dtype=torch.float32)

    planes = []
    for axis, places in ((2, (1, 17, 33)), (1, (3, 19, 35)), (0, (5, 21, 37))):
        whole, inside = [], []
        for at in places:
            one, two, mask = (volume.take(at, axis) for volume in (made, real, body))
            values = package(image(one), image(two))[0, 0].detach().numpy()
            whole.append(values.ravel())
            inside.append(values[mask[::-1, ::-1].T])
        planes.append([np.concatenate(whole).mean(), np.concatenate(inside).mean()])
    plant(random_alexnet)
    scores, rows = reduced(run, metric(stride=16), items_of(tmp_path, [(made, real)]))
    expected = np.mean(planes, axis=0)
    assert [scores[""].value, scores["body"].value] == pytest.approx(expected, rel=1e-4)
    assert expected[0] > 1e-3 and abs(expected[1] / expected[0] - 1) > 0.05
    assert {(row.region, row.patient) for row in rows} == {("", "p0"), ("body", "p0")}


def test_it_grows_with_blur_and_is_0_for_equal_images(
    run: Run, tmp_path: Path, plant: Plant, random_alexnet: Path
) -> None:
    plant(random_alexnet)
    lpips = metric(stride=16)
    states = lpips.extract(items_of(tmp_path, [pair(0, blur) for blur in (0.0, 0.5, 1.0, 2.0)]), run)
    values = [tuple(state["lpips"]) for state in states]
    assert values[0] == (0, 0)
    for region in (0, 1):
        assert sorted(value[region] for value in values) == [value[region] for value in values]


def test_errors_outside_the_window_do_not_count(run: Run, tmp_path: Path, plant: Plant, random_alexnet: Path) -> None:
    plant(random_alexnet)
    _, real = pair()
    below = np.where(real <= -1000, -1300, real).astype(np.int16)
    scores, _ = reduced(run, metric(stride=16), items_of(tmp_path, [(below, real)]))
    assert scores[""].value == 0


def test_failed_cases_rank_last_and_stay_in_n(run: Run) -> None:
    lpips = LPIPS(LPIPSConfig(backbone_sha256="0" * 64))
    items = [Item(f"c{i}", "reconstructions", None, f"p{i}", failed="NaN") for i in range(4)]
    for i, value in enumerate((0.3, 0.1, 0.2)):
        save_state(run.scratch / f"{i}.safetensors", {"lpips": np.array([value, np.nan])})
        items[i] = dataclasses.replace(items[i], path=run.scratch / f"{i}.safetensors", failed=None)
    found = list(lpips.reduce(MetricInputs("toy", "toy", DATA, {NEED: items}), run))
    whole, body = (score for score in found if isinstance(score, Score))
    assert whole.value == pytest.approx((0.2 + 0.3) / 2)
    assert (whole.n, whole.failed) == (4, 1)
    assert (body.status, body.reason) == ("not_run", "1 of 4 cases failed")


def test_a_generator_without_reconstructions_is_not_run(run: Run) -> None:
    (score,) = LPIPS(LPIPSConfig(backbone_sha256="0" * 64)).reduce(MetricInputs("noise", "toy", DATA, {}), run)
    assert isinstance(score, Score) and score.status == "not_run" and "no autoencoder" in score.reason


def test_slices_too_small_for_the_network_and_images_without_body_have_no_value(
    run: Run, tmp_path: Path, plant: Plant, random_alexnet: Path
) -> None:
    plant(random_alexnet)
    flat, air = (image[:, :, :30] for image in pair()), np.full(SHAPE, -1000, np.int16)
    states = list(metric(stride=32).extract(items_of(tmp_path, [tuple(flat), (air + np.int16(30), air)]), run))
    assert np.isnan(states[0]["lpips"]).all()
    assert states[1]["lpips"][0] > 0 and np.isnan(states[1]["lpips"][1])


@pytest.mark.parametrize("net", ["alex", "vgg", "squeeze"])
def test_the_least_side_is_the_package_s(net: str) -> None:
    from lpips import LPIPS as Package

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = Package(net=net, pnet_rand=True, verbose=False)
    least = perceptual.LEAST_SIDE[net]
    package(*[torch.zeros(1, 3, least, least)] * 2)
    with pytest.raises(RuntimeError):
        package(*[torch.zeros(1, 3, least - 1, least)] * 2)


@pytest.mark.parametrize(("count", "stride"), [(48, 4), (47, 4), (9, 4), (3, 5), (10, 1)])
def test_slices_are_evenly_spread_and_centred(count: int, stride: int) -> None:
    found = perceptual.slices(count, stride)
    assert set(np.diff(found)) <= {stride} and found[0] >= 0 and found[-1] < count
    assert (count - 1 - found[-1]) - found[0] in (0, 1)


# --------------------------------------------------------------------------------------------------------- the weights
def test_names_and_places_are_torchvisions() -> None:
    kinds = {"alex": models.AlexNet_Weights, "vgg": models.VGG16_Weights, "squeeze": models.SqueezeNet1_1_Weights}
    for net, kind in kinds.items():
        assert kind.IMAGENET1K_V1.url == f"{backbones.SOURCE}/{backbones.FILES[net]}"  # type: ignore[index]


def test_without_the_backbone_it_is_not_run_and_says_what_to_fetch(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "none"))
    lpips = metric()
    scores, rows = reduced(run, lpips, [*items_of(tmp_path, [pair()]), Item("f", "reconstructions", None)])
    assert not rows and scores[""].status == "not_run"
    assert (scores[""].n, scores[""].failed) == (2, 1)
    path = tmp_path / "none" / "alexnet-owt-7be5be79.pth"
    assert str(path) in scores[""].reason and "https://download.pytorch.org/models/alexnet" in scores[""].reason


def test_weights_that_arrive_later_change_the_configuration_and_the_protocol(
    tmp_path: Path, plant: Plant, random_alexnet: Path
) -> None:
    """Else a state without a value would be taken for the measurement."""
    without = metric()
    plant(random_alexnet)
    with_weights = metric()
    assert without.config.backbone_sha256 is None
    assert with_weights.config.backbone_sha256 == file_sha256(random_alexnet)
    assert protocol_of("lpips", without, DATA)[0] != protocol_of("lpips", with_weights, DATA)[0]
    assert protocol_of("lpips", with_weights, DATA)[1]["backbone"]["sha256"] == file_sha256(random_alexnet)


def test_a_file_that_is_not_what_its_name_says_is_refused(plant: Plant, random_alexnet: Path) -> None:
    place = plant(random_alexnet)
    place.write_bytes(place.read_bytes() + b"x")
    with pytest.raises(UserError, match=rf"{place.name}: sha256 begins with"):
        metric()


def test_another_file_than_asked_for_or_planned_with_is_refused(
    run: Run, tmp_path: Path, plant: Plant, random_alexnet: Path
) -> None:
    place = plant(random_alexnet)
    with pytest.raises(UserError, match="backbone_sha256 asks for 0000"):
        metric(backbone_sha256="0" * 64)
    lpips = metric()
    place.unlink()
    with pytest.raises(UserError, match="not the file that the run was planned with"):
        list(lpips.extract(items_of(tmp_path, [pair()]), run))


class Pickled:
    """An object that a weights file has no business to hold."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.system, ("exit 1",))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"features.0.weight": torch.zeros(64, 3, 3, 3)}, r"missing tensor 'slice1.0.bias'.*another architecture"),
        ([1, 2], "missing tensor"),
        ({"x": Pickled()}, "not a checkpoint of plain tensors"),
        (None, "not a checkpoint of plain tensors"),
    ],
)
def test_other_tensors_pickled_code_and_rubbish_are_refused_by_name(
    run: Run, tmp_path: Path, plant: Plant, content: object, reason: str
) -> None:
    source = tmp_path / "other.pth"
    torch.save(content, source) if content is not None else source.write_bytes(b"no weights")
    place = plant(source)
    with pytest.raises(UserError, match=rf"{place.name}: {reason}"):
        list(metric().extract(items_of(tmp_path, [pair()]), run))


def test_nothing_is_printed_and_no_warning_raised(
    run: Run, tmp_path: Path, plant: Plant, random_alexnet: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plant(random_alexnet)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(metric(stride=32).extract(items_of(tmp_path, [pair()]), run))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "settings", [{"hu_window": (5, 5)}, {"stride": 0}, {"net": "resnet"}, {"backbone_sha256": "x"}]
)
def test_bad_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LPIPSConfig.model_validate(settings)
