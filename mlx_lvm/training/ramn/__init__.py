"""What RAMN's training has of its own: stretches of documents, the linear anchor, the trainer."""
