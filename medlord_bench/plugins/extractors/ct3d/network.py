"""The layout of `ct3d`'s network: ResNet-152 inflated to 3D as in Merlin (Blankemeier et al. 2024, arXiv 2406.06512).

Inflation after Carreira & Zisserman 2017 (arXiv 1705.07750): 7x7 becomes 3x7x7 with stride 1 along the depth.
"""

from __future__ import annotations

from medlord_bench.plugins.extractors.resnet3d import Layout

LAYOUT = Layout(blocks=(3, 8, 36, 3), bottleneck=True, channels=3, kernel=(3, 7, 7), stride=(1, 2, 2))
