"""Faults to plant, so that the checks show that they can fail."""
