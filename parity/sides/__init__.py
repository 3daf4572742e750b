"""The sides of a comparison: MLX, torch and the float64 truth, their inputs, everything seen on the way."""
