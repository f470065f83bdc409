"""What to doubt about real images and samples: said in the log while they are made, and kept for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medlord_bench.contracts import DataProtocol

HALF = 0.5
DOUBT = "doubt"  # the fact of a sample's sidecar
OUTLINE = "outline"  # the fact of a real image's sidecar: `volumes.outline`
EXAMPLES = 3


def padded(source_shape: Sequence[int], protocol: DataProtocol) -> float:
    """The part of the grid that an image of `source_shape` does not fill."""
    if protocol.fit != "crop-pad":
        return 0.0
    filled = 1.0
    for there, wanted in zip(source_shape, protocol.grid.shape, strict=True):
        filled *= min(there, wanted) / wanted
    return 1 - filled


def padding_doubt(shapes: Mapping[str, Sequence[int]], protocol: DataProtocol) -> str | None:
    """One line if images are padded by more than half of the grid. shapes: case -> its shape before."""
    shares = {case: padded(shape, protocol) for case, shape in shapes.items()}
    much = {case: share for case, share in shares.items() if share > HALF}
    if not much:
        return None
    worst = max(much, key=much.__getitem__)
    size, grid = ("x".join(map(str, shape)) for shape in (shapes[worst], protocol.grid.shape))
    return (
        f"{len(much)} of {len(shares)} images are padded by more than half of the grid, {worst} by {100 * much[worst]:.0f} % "
        f"({size} voxels on a grid of {grid}): metrics would compare padding; set dataset.fit=resize, dataset.spacing, or a "
        "smaller dataset.shape"
    )


def values_doubt(doubts: Mapping[str, str], count: int) -> str | None:
    """One line if samples are not plausible CT. doubts: item -> why."""
    if not doubts:
        return None
    item, why = next(iter(doubts.items()))
    return f"{len(doubts)} of {count} volumes are not plausible CT in HU, e.g. {item}: {why}; every score of them is in doubt"


def copies_doubt(outlines: Mapping[str, Sequence[int]], split_of: Mapping[str, str]) -> str | None:
    """One line if images of two splits are nearly the same. outlines: item -> `volumes.outline`; split_of: item -> split."""
    from medlord_bench.volumes.outline import near

    across = [pair for pair in near(outlines) if split_of[pair[0]] != split_of[pair[1]]]
    if not across:
        return None
    named = ", ".join(
        f"{first} ({split_of[first]}) and {second} ({split_of[second]})" for first, second, _ in across[:EXAMPLES]
    )
    more = f" and {len(across) - EXAMPLES} more pairs" if len(across) > EXAMPLES else ""
    return (
        f"nearly the same image in two splits: {named}{more}; they may be one patient, and scores of memorisation and of the "
        "test split mean nothing then: exclude one, or give both one patient in dataset.manifest"
    )
