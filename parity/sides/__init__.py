"""The sides of a comparison: MLX, torch and the float64 truth, what they are given, and everything seen on the way."""
