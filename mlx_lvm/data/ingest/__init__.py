"""Where corpora come from: documents, chunking, encoders, synthetic ones, merge and cut."""
