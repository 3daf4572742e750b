"""Latent vector models: predict the embedding of a document's next chunk from the chunks before it.

Importing this package costs nothing: MLX loads with the first module that needs it, after `mlx_lvm.core.mlx` has
chosen a fast BLAS where the platform lacks one.
"""

__version__ = "0.1.0"
