"""What RAMN's training has of its own: stretches of documents, the closed-form anchor, the trainer."""
