"""The questions of the card, each answered from the run, or "not run"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from medlord_bench.contracts.metrics import Quantity
from medlord_bench.contracts.results import Score
from medlord_bench.results.run_results import RunResults
from medlord_bench.results.words import listing, tools

NOT_RUN = "not run"
AUTHORS = "to be answered by the authors"
MANY = 6  # contestants beyond which a range is given instead of each value


@dataclass(frozen=True)
class Item:
    """answered: whether the run itself answers it."""

    question: str
    answer: str

    @property
    def answered(self) -> bool:
        return self.answer not in (NOT_RUN, AUTHORS)


@dataclass(frozen=True)
class Section:
    title: str
    items: Sequence[Item]


def sections(run: RunResults) -> list[Section]:
    """Data, protocol, seven criteria (Zamzmi 2025), limits, hardware, and CLAIM's items (Mongan 2020)."""
    return [
        Section("Data", _data(run)),
        Section("Contestants", _contestants(run)),
        Section("Measurement", _measurement(run)),
        Section("The seven criteria of synthetic medical data", _criteria(run)),
        Section("Limits", _limits(run)),
        Section("Hardware and software", _hardware(run)),
        Section("CLAIM, items 7 to 42", [Item(f"{number}. {title}", answer(run)) for number, title, answer in CLAIM]),
    ]


# --------------------------------------------------------------------------------------------------------------- data
def _protocol(run: RunResults, field: str) -> object:
    """A field of the data's part of the protocol, which all metrics share."""
    for text in (run.results.protocols if run.results else {}).values():
        data = text.get("data")
        if isinstance(data, dict) and data.get(field) is not None:
            return data[field]
    return None


def _text(value: object) -> str:
    if value is None:
        return "not recorded"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return " x ".join(map(_text, value))
    return str(value)


KNOWN_BY_FILE = "known by the aggregate statistics of a reference file (sha256 {}), not by their cases"


def _data(run: RunResults) -> list[Item]:
    grid = _protocol(run, "grid")
    grid = grid if isinstance(grid, dict) else {}
    licences = (run.results.licences if run.results else {}).items()
    return [
        Item("Data set", run.dataset + (" (phantoms made by a program, not patients)" if run.synthetic else "")),
        *([Item("Real volumes", KNOWN_BY_FILE.format(run.reference))] if run.reference else []),
        Item("Cases in each split", _text(_protocol(run, "counts"))),
        Item("How the split was made", _text(_protocol(run, "split"))),
        Item("SHA-256 of the split", _text(_protocol(run, "split_sha256"))),
        Item("Grid", f"{_text(grid.get('shape'))} voxels of {_text(grid.get('spacing'))} mm"),
        Item("HU window", _text(grid.get("hu_window")).replace(" x ", " to ")),
        Item("Masks of real images", _text(_protocol(run, "masks"))),
        Item("Licences", "; ".join(f"{name}: {text}" for name, text in licences) or "not recorded"),
    ]


def _contestants(run: RunResults) -> list[Item]:
    efforts = {one.contestant: one for one in run.efforts}
    found = []
    for name in run.contestants:
        parts = ["control"] if name not in run.ranked else []
        if effort := efforts.get(name):
            parts.append(f"{effort.steps:,} training steps" if effort.steps else "not trained by the bench")
            parts += [f"{effort.seconds:,.0f} s of the device"] if effort.seconds is not None else []
            parts += [f"works on {effort.native}"] if effort.native else []
        found.append(Item(name, "; ".join(parts) or "no training is recorded"))
    return found


def _measurement(run: RunResults) -> list[Item]:
    found = []
    for quantity in run.quantities.values():
        scores = [one for one in run.scores if one.metric == quantity.name and one.status == "ok"]
        intervals = dict.fromkeys(one.interval for one in scores if one.low is not None and one.interval)
        protocols = dict.fromkeys(one.protocol for one in scores)
        used = tools((run.results.protocols if run.results else {}).get(id, {}) for id in protocols)
        told = f"{quantity.meaning} {used.capitalize()}{'. ' * bool(used)}Protocol {', '.join(protocols)}. "
        told += f"Interval: {'; '.join(intervals) or 'none'}."
        found.append(Item(quantity.name, told if scores else NOT_RUN))
    return found


# ------------------------------------------------------------------------------------------------------ seven criteria
CRITERIA = (
    ("Congruence", "congruence", "Does the distribution of the samples agree with that of real volumes?"),
    ("Coverage", "coverage", "Do the samples show the variety of real volumes?"),
    ("Constraint", "constraint", "Do the samples keep to anatomy, orientation and condition masks?"),
    ("Completeness", "completeness", "Do the samples have all structures that real volumes have?"),
    ("Compliance", "compliance", "Do the samples give away training patients?"),
)


def _criteria(run: RunResults) -> list[Item]:
    found = []
    for title, criterion, question in CRITERIA:
        told = [_values(run, one) for one in run.quantities.values() if one.criterion == criterion]
        found.append(Item(f"{title}: {question}", "; ".join(filter(None, told)) or NOT_RUN))
    found.append(
        Item(
            "Comprehension: Is it clear how the data were made and measured?",
            f"{len(run.results.protocols) if run.results else 0} protocols are recorded in full; {_versions(run)}",
        )
    )
    found.append(Item("Consistency: Are results equal over sites, scanners and groups of patients?", NOT_RUN))
    return found


def _values(run: RunResults, quantity: Quantity) -> str:
    """The values of the ranked contestants, whole volumes where there are any, with their n."""
    own = [one for one in run.scores if one.metric == quantity.name and one.status == "ok" and one.value is not None]
    own = [one for one in own if one.generator in run.ranked]
    if any(not one.region for one in own):
        own = [one for one in own if not one.region]
    if not own:
        return ""
    values = [one.value for one in own if one.value is not None]
    if any(one.region for one in own) or len(own) > MANY:
        return f"{quantity.name} {min(values):.4g} to {max(values):.4g} over {len(own)} numbers"
    told = [
        f"{one.generator}{f' ({one.reference})' if one.reference else ''} {one.value:.4g} (n {one.n}"
        + (f", real volumes {one.floor:.4g}" if one.floor is not None else "")
        + ")"
        for one in own
    ]
    return f"{quantity.name}: {', '.join(told)}"


# -------------------------------------------------------------------------------------------------- limits and machine
def _limits(run: RunResults) -> list[Item]:
    absent: dict[str, list[Score]] = {}
    for score in run.scores:
        if score.status == "not_run":
            absent.setdefault(score.reason or "no reason was given", []).append(score)
    found = [Item(f"Without a value: {_named(scores)}", reason) for reason, scores in absent.items()]
    warned = dict.fromkeys(
        f"{one.generator}, {one.metric}{f' of {one.region}' if one.region else ''}: {one.warning}"
        for one in run.scores
        if one.warning
    )
    found += [Item("Warning", text) for text in warned]
    found += [Item("Caution", one.caution) for one in run.quantities.values() if one.caution]
    found.append(Item("Intervals", "over cases for one trained checkpoint each, not over trainings"))
    return found


def _named(scores: Sequence[Score]) -> str:
    """Quantities with the contestants that lack them."""
    metrics = listing(list(dict.fromkeys(one.metric for one in scores)))
    return f"{metrics} of {listing(list(dict.fromkeys(one.generator for one in scores)))}"


def _versions(run: RunResults) -> str:
    found = run.origins[0].provenance or {}
    return f"medlord-bench {found.get('medlord_bench', 'of an unrecorded version')}"


def _hardware(run: RunResults) -> list[Item]:
    found = []
    for origin in run.origins:
        facts = origin.provenance or {}
        cards = ", ".join(str(one.get("name")) for one in facts.get("gpus") or [])
        cpu = facts.get("cpu") or {}
        machine = cards or f"{cpu.get('count', 'unknown number of')} cores of {cpu.get('model', 'an unrecorded CPU')}"
        found.append(Item(f"Machine of {origin.name}", f"{machine}; device {facts.get('device', 'not recorded')}"))
        packages = ", ".join(f"{name} {version}" for name, version in (facts.get("packages") or {}).items())
        found.append(Item("Software", f"{_versions(run)}, Python {facts.get('python', '?')}, {packages}"))
    if run.peak_gib is not None:
        found.append(Item("Highest memory of a step", f"{run.peak_gib:.2f} GiB"))
    return found


# --------------------------------------------------------------------------------------------------------------- CLAIM
def _authors(run: RunResults) -> str:
    return AUTHORS


def _not_run(run: RunResults) -> str:
    return NOT_RUN


def _of(title: str, question: str) -> Callable[[RunResults], str]:
    """The answer that a section gives already."""
    makers = {"Data": _data, "Hardware": _hardware, "Limits": _limits}

    def answer(run: RunResults) -> str:
        found = [item.answer for item in makers[title](run) if item.question.startswith(question)]
        return "; ".join(found) or NOT_RUN

    return answer


def _metrics(run: RunResults) -> str:
    return ", ".join(run.quantities) or NOT_RUN


def _tests(run: RunResults) -> str:
    how = dict.fromkeys(one.how for one in run.comparisons.comparisons)
    return f"{'; '.join(how)}; p-values with Holm's correction" if how else NOT_RUN


def _estimates(run: RunResults) -> str:
    done = [one for one in run.scores if one.status == "ok"]
    with_interval = sum(one.low is not None for one in done)
    return f"{len(done)} numbers, {with_interval} of them with an interval" if done else NOT_RUN


def _failures(run: RunResults) -> str:
    failed = {one.generator: (one.failed, one.n) for one in run.scores if one.failed}
    told = [f"{name}: {count} of {n} samples failed" for name, (count, n) in failed.items()]
    return "; ".join(told) or "no sample failed"


def _training(run: RunResults) -> str:
    told = [f"{one.contestant} {one.steps:,} steps" for one in run.efforts if one.steps]
    return "; ".join(told) or "nothing was trained by the bench"


CLAIM: tuple[tuple[int, str, Callable[[RunResults], str]], ...] = (
    (7, "Data sources", _of("Data", "Data set")),
    (8, "Eligibility criteria", _authors),
    (9, "Data preprocessing", _of("Data", "Grid")),
    (10, "Selection of data subsets", _of("Data", "Cases")),
    (12, "De-identification methods", lambda run: "none needed: phantoms" if run.synthetic else AUTHORS),
    (
        13,
        "Handling of missing data",
        lambda run: "values that could not be computed are in the section Limits, with reasons",
    ),
    (14, "Definition of the reference standard", _of("Data", "Masks")),
    (16, "Source and qualifications of annotators", _authors),
    (17, "Annotation tools", _of("Data", "Masks")),
    (18, "Variability of annotators", _not_run),
    (19, "Sample size", _of("Data", "Cases")),
    (20, "Assignment of data to partitions", _of("Data", "How the split")),
    (21, "Level at which partitions are disjoint", lambda run: "patient"),
    (23, "Software libraries", _of("Hardware", "Software")),
    (25, "Details of training", _training),
    (28, "Metrics of performance", _metrics),
    (29, "Statistical measures of significance and uncertainty", _tests),
    (30, "Robustness analysis", _not_run),
    (32, "Testing on external data", _not_run),
    (34, "Demographic characteristics", _authors),
    (36, "Estimates of performance and their precision", _estimates),
    (37, "Failure analysis", _failures),
    (38, "Limitations", lambda run: "see the section Limits"),
    (40, "Registration number", _authors),
    (41, "Access to the full protocol", lambda run: "run.yaml of the run folder repeats the run"),
    (42, "Funding", _authors),
)
