"""The memory guard: the limit of a step (`budget`), its enforcement (`hold`, `children`), and the measured peaks
(`measured`).

Importing these modules does not import torch, so that listing and reporting stay fast.
"""
