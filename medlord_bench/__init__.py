"""medlord-bench: evaluation-first benchmarking of generative models of 3D CT."""

__version__ = "0.1.0"
