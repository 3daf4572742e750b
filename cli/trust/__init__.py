"""Commands of the panel Trust: parity, bench, doctor."""
