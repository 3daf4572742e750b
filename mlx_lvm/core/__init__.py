"""What everything stands on: the one import of MLX, files written whole, activations, statistics."""
