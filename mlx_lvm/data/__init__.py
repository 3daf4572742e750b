"""Corpora of vectors in memory: the encoder card, windows, splits, sampling, streamed blocks."""
