"""Commands that work with models (panel Work): train, tune, eval, predict, compare, attention."""
