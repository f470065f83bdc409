"""The bench tests itself: faults that are known by how they were made, and what every metric must say of them."""
