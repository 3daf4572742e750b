"""One closer look a file: ablations, arrow of time, attention, difficulty, horizons, queries, rollout."""
