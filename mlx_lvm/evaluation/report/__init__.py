"""The report to look at: HTML, its figures, the plots."""
