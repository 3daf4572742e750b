"""Parity of the text encoders: ours in MLX against transformers' own modules, read from one folder."""
