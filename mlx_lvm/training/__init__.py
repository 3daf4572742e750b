"""Training: options, losses, the compiled step, the loop, checkpoints, runs, search."""
