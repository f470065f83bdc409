"""A limit is held, restored, and told: on a card by torch's allocator, in a process by the kernel."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch

from medlord_bench.errors import ExitCode, MemoryBudgetError, MissingError, Stopped
from medlord_bench.memory.budget import CONTEXT_GIB, GIB
from medlord_bench.memory.hold import held, is_exhausted, limit_on, over_budget
from medlord_bench.memory.measured import PeakMemory

linux = pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA bounds allocations on Linux only")


@dataclass
class Card:
    """A card of `total` GiB: `foreign` in use by others, `own` by this process besides its context."""

    total: float = 80.0
    foreign: float = 0.0
    own: float = 0.0
    fractions: list[float] = field(default_factory=list)
    emptied: int = 0

    def info(self, device: str) -> tuple[int, int]:
        return int((self.total - self.foreign - self.own - CONTEXT_GIB) * GIB), int(self.total * GIB)

    def empty(self) -> None:
        self.emptied += 1


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    made = Card()
    for name, function in {
        "mem_get_info": made.info,
        "memory_reserved": lambda device: int(made.own * GIB),
        "get_device_name": lambda device: "NVIDIA H100 80GB HBM3",
        "set_per_process_memory_fraction": lambda fraction, device: made.fractions.append(fraction),
        "empty_cache": made.empty,
        "reset_peak_memory_stats": lambda device: None,
        "max_memory_allocated": lambda device: 3 * GIB,
        "max_memory_reserved": lambda device: 4 * GIB,
    }.items():
        monkeypatch.setattr(torch.cuda, name, function)
    return made


# ------------------------------------------------------------------------------------------------------------ the card
def test_an_80_gib_card_is_held_to_what_a_24_gb_card_gives_without_the_context(card: Card) -> None:
    with held("cuda:0", 24, "samples:x"):
        assert card.fractions == [pytest.approx((22.5 - 0.5) / 80)]
        assert not torch.backends.cuda.math_sdp_enabled()
    assert card.fractions[-1] == 1.0
    assert torch.backends.cuda.math_sdp_enabled()
    assert card.emptied == 1


def test_what_was_set_is_restored_after_an_error_too(card: Card) -> None:
    with pytest.raises(ZeroDivisionError), held("cuda:0", 24, "samples:x"):
        raise ZeroDivisionError
    assert card.fractions[-1] == 1.0 and torch.backends.cuda.math_sdp_enabled()


def test_a_card_that_others_use_is_refused_with_what_would_do(card: Card) -> None:
    card.total, card.foreign = 24.0, 6.0
    with pytest.raises(MemoryBudgetError) as error, held("cuda:0", 24, "samples:x"):
        pass
    assert error.value.code == ExitCode.MEMORY
    assert "H100" in str(error.value) and "6.0 of 24.0 GiB are in use by other processes" in str(error.value)
    assert "lower --memory-limit (up to 19.2)" in str(error.value) and "\n" not in str(error.value)
    assert card.fractions == []
    with held("cuda:0", 19.2, "samples:x"):
        assert card.fractions == [pytest.approx(17.5 / 24)]


def test_others_on_a_large_card_that_leave_enough_are_no_reason_to_refuse(card: Card) -> None:
    card.foreign = 40.0
    with held("cuda:0", 24, "samples:x"):
        assert card.fractions == [pytest.approx(22 / 80)]


def test_what_this_process_has_reserved_already_is_not_foreign(card: Card) -> None:
    card.total, card.own = 24.0, 20.0
    with held("cuda:0", 24, "samples:x"):
        assert card.fractions == [pytest.approx(22 / 24)]


def test_a_little_that_a_desktop_has_lowers_the_cap_and_is_no_reason_to_refuse(card: Card) -> None:
    card.total, card.foreign = 22.0, 0.25
    limit = limit_on("cuda:0", "auto")
    assert limit is not None
    with held("cuda:0", limit, "samples:x"):
        assert card.fractions == [pytest.approx((21.75 - 0.5) / 22)]


def test_a_limit_larger_than_the_card_is_lowered_to_it_and_said(
    card: Card, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    card.total = 16.0
    monkeypatch.setattr(logging.getLogger("medlord_bench"), "propagate", True)
    lowered = limit_on("cuda:0", 40.0)
    assert lowered == pytest.approx(16 / 22.5 * 24)
    assert "--memory-limit 40 GiB: NVIDIA H100 80GB HBM3 has 16.0 GiB; limit lowered to that" in caplog.text
    caplog.clear()
    assert limit_on("cuda:0", "auto") == lowered
    assert caplog.text == ""


def test_auto_is_24_gib_on_a_card_and_nothing_on_a_cpu(card: Card) -> None:
    assert limit_on("cuda:0", "auto") == 24
    assert limit_on("cpu", "auto") is None
    assert limit_on("cuda:0", None) is limit_on("cpu", None) is None
    assert limit_on("cpu", 3.0) == limit_on("cuda:0", 3.0) == 3.0


@pytest.mark.parametrize(
    ("total", "limited", "evidence"),
    [
        (80.0, True, "capped-on-NVIDIA-H100-80GB-HBM3"),
        (80.0, False, "measured-on-NVIDIA-H100-80GB-HBM3"),
        (23.7, True, "measured-on-24GB"),
    ],
)
def test_a_measurement_says_on_what_it_was_made(card: Card, total: float, limited: bool, evidence: str) -> None:
    card.total = total
    with PeakMemory("cuda:0", limited, {"total_gib": 9.5, "allocated_gib": 8.0}) as peak:
        card.own = 5.0
    facts = peak.facts()
    assert facts["evidence"] == evidence and facts["card"] == "NVIDIA H100 80GB HBM3"
    assert (facts["predicted"], facts["predicted_allocated"]) == (9.5, 8.0)
    assert (facts["allocated"], facts["reserved"], facts["device"]) == (3, 4, 5)
    assert peak.gib == 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_card_refuses_more_than_the_cap_and_gives_it_afterwards() -> None:
    with held("cuda:0", 4.0, "samples:x"), pytest.raises(torch.OutOfMemoryError):
        torch.empty(int(3.5 * GIB), dtype=torch.uint8, device="cuda:0")
    torch.empty(int(3.5 * GIB), dtype=torch.uint8, device="cuda:0")


# --------------------------------------------------------------------------------------------------------- the process
def in_process(body: str) -> subprocess.CompletedProcess[str]:
    head = "import torch, numpy as np, resource\nfrom medlord_bench.memory.hold import held, is_exhausted\n"
    return subprocess.run([sys.executable, "-c", head + body], capture_output=True, text=True)


@linux
def test_a_process_gets_no_more_than_the_limit_can_go_on_and_has_its_old_limit_afterwards() -> None:
    done = in_process("""
before = resource.getrlimit(resource.RLIMIT_DATA)
errors = []
with held("cpu", 2.0, "samples:x"):
    assert resource.getrlimit(resource.RLIMIT_DATA) == (2 * 2**30, before[1])
    for allocate in (lambda: torch.empty(3 * 2**30, dtype=torch.uint8), lambda: np.empty(3 * 2**30, np.uint8)):
        try:
            allocate()
        except Exception as error:
            errors.append(error)
assert resource.getrlimit(resource.RLIMIT_DATA) == before
print([is_exhausted(error, starved=True) for error in errors])
""")
    assert done.stdout.strip() == "[True, True]", done.stderr


@linux
def test_a_process_that_has_more_than_the_limit_already_is_refused_in_one_line() -> None:
    with pytest.raises(MemoryBudgetError, match="before the step begins.*--memory-limit 0.1; give a larger limit"):
        with held("cpu", 0.1, "samples:x"):
            pass


def test_where_the_system_has_no_such_limit_it_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("medlord_bench"), "propagate", True)
    monkeypatch.setattr("medlord_bench.memory.hold.sys", SimpleNamespace(platform="darwin"))
    with held("cpu", 0.1, "samples:x"):
        pass
    assert "--memory-limit 0.1 GiB: not enforced in this process, since darwin has no such limit" in caplog.text


# -------------------------------------------------------------------------------------------------- telling it from others
def caused(by: BaseException, error: Exception) -> Exception:
    error.__cause__ = by
    return error


@pytest.mark.parametrize(
    ("error", "anywhere", "starved"),
    [
        (MemoryError(), True, True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), True, True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True, True),
        (RuntimeError("std::bad_alloc"), True, True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True, True),
        (OSError(12, "Cannot allocate memory"), True, True),
        (RuntimeError("No available kernel. Aborting execution."), True, True),
        (caused(MemoryError(), MissingError("weights: damaged")), True, True),
        (RuntimeError("could not create a primitive"), False, True),
        (RuntimeError("can't start new thread"), False, True),
        (ModuleNotFoundError("No module named 'monai.networks.blocks.denseblock'"), False, True),
        (SystemExit(1), False, True),
        (ValueError("shapes differ"), False, False),
        (OSError(28, "No space left on device"), False, False),
        (caused(ImportError("no totalsegmentator"), MissingError("install it")), False, False),
        (caused(MemoryError(), Stopped("saved")), False, False),
    ],
)
def test_running_out_of_memory_is_told_from_other_errors(error: BaseException, anywhere: bool, starved: bool) -> None:
    assert is_exhausted(error, starved=False) == anywhere
    assert is_exhausted(error, starved=True) == starved


def test_the_line_names_step_stage_cap_peak_cause_and_change() -> None:
    step = "train:m:diffusion", "a smaller micro_batch or patch for this stage"
    forecast = {"stage": "train diffusion", "advice": "set diffusion.micro_batch=1 (18.2 GiB)"}
    known = str(over_budget(*step, "cuda:0", 24, "CUDA out of memory. Tried\nlong", forecast, 22.25))
    assert known == (
        "step train:m:diffusion (train diffusion): out of memory on cuda:0, cap 22.5 GiB, peak so far 22.25 GiB (CUDA out "
        "of memory. Tried); set diffusion.micro_batch=1 (18.2 GiB), or a larger --memory-limit than 24; "
        "published items are kept"
    )
    unknown = str(over_budget(*step, "cpu", 3, ""))
    assert unknown == (
        "step train:m:diffusion: out of memory on cpu, cap 3 GiB (no message); use a smaller micro_batch or patch for "
        "this stage, or a larger --memory-limit than 3; published items are kept"
    )
