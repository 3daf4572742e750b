"""Arrays and columns in other people's files, read in blocks of rows, and what each of them is for."""
