"""What a parity run says: its table, JSON, page, section of a card, and the bundle that a failure leaves."""
