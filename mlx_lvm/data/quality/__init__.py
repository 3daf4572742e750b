"""What a corpus holds and what is wrong with it: audit, exact and near duplicates, leakage."""
