"""What a data set on disk takes of its folder and what it leaves out: printed, in `provenance.json` and on the page."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from pydantic import Field

from medlord_bench.contracts.values import FrozenConfig


class LeftOut(FrozenConfig):
    """Files of one kind that are not used. places: paths below the root, the first ones. glob: matches all of them."""

    reason: str
    count: int
    places: tuple[str, ...] = ()
    glob: str = ""

    def words(self) -> str:
        more = ", ..." if self.count > len(self.places) else ""  # no places: the reason says all
        named = f" ({', '.join(self.places)}{more})" if self.places else ""
        return f"{self.count} {self.reason}{named}" + (f" [{self.glob}]" if self.glob else "")


class Inventory(FrozenConfig):
    """One block on a data folder.

    layout: name of the recognised layout. taken: what is used, with counts. warnings: what to look at before a run.
    """

    root: str
    layout: str
    files: int = Field(description="files seen below the root")
    taken: str
    left_out: tuple[LeftOut, ...] = ()
    warnings: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The block without its warnings, one line for each kind of file."""
        lines = [f"{self.root}: {self.taken}; layout: {self.layout}; {self.files} files seen"]
        lines += [f"  left out: {one.words()}" for one in self.left_out]
        if any(one.glob for one in self.left_out):
            lines.append("  (in brackets: globs for dataset.exclude; dataset.include takes only what it matches)")
        return lines

    def anonymous(self) -> Inventory:
        """Counts and reasons alone: no names of files or folders, which may be those of patients."""
        left = tuple(LeftOut(reason=one.reason, count=one.count) for one in self.left_out)
        named = self.layout.startswith(("manifest ", "folders "))
        layout = self.layout.split()[0] if named else self.layout.partition(" (")[0]
        return Inventory(root="data", layout=layout, files=self.files, taken=self.taken, left_out=left)


@runtime_checkable
class HasInventory(Protocol):
    """A data set, or a generator of files, that says what it takes of a folder."""

    def inventory(self) -> Inventory: ...
