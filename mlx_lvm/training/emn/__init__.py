"""Training of EMN: statistics of a corpus, its expert, the geometry of windows, and what learns from it."""
