"""Faults of volumes: each a function of HU (X, Y, Z) float32, a strength and a random generator, which returns HU of the
same shape, or None if the volume has nothing that it could spoil."""
