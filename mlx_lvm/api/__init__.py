"""The Python interface: what `import mlx_lvm` offers, NumPy in and out, and what the commands call."""
