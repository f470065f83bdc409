"""CT volumes and label maps: read, check, fit to a grid, write. Axes (R, A, S), HU in int16, lengths in mm."""
