"""What things cost: timing, workers, the roofline, what the machine has."""
