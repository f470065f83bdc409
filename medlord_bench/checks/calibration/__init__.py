"""The bench tests itself: known faults, and the required response of every metric."""
