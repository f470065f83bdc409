"""DICOM CT: which series a folder has, the geometry of each from its positions, its values in HU."""
