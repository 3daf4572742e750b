"""Where corpora come from: documents, chunking, encoders, other people's files, synthetic ones, merge and cut."""
