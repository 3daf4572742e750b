"""From a predicted vector to a ranking: fusion, calibration, search, predictions for a user."""
