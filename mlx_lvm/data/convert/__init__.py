"""Other people's files to a corpus: rows with document ids, windows folded back, titles."""
