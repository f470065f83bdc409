"""The memory guard: what a step may take (`budget`), held while it works (`hold`, `children`), and what it took
(`measured`).

Nothing here imports torch when it is imported, so that listing and reporting stay fast.
"""
