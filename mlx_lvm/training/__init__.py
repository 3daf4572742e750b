"""Training: options, losses, the compiled step, the loop, checkpoints and resuming, runs, search."""
