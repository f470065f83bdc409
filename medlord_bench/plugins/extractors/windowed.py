"""The type of a setting that all 3D networks of whole volumes have. Imports no torch, unlike `whole_volumes`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Side = Annotated[int, Field(ge=64, le=4096)]  # voxels: no smaller than a network's field of view
Window = tuple[Side, Side, Side]  # most voxels along X, Y, Z in one pass
