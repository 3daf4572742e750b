"""Figures of a prediction, and the exact retrieval of the true next chunk."""
