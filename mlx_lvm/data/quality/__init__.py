"""What is wrong with a corpus: the audit, exact and near duplicates, leakage between splits."""
