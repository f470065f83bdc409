"""Descriptors: numbers of each volume that are compared with those of real volumes, such as the HU of a tissue."""
