"""Commands of the panel Work: train, tune, eval, predict, compare, attention."""
