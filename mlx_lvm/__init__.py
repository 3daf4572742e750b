"""Latent vector models: predict the embedding of a document's next chunk from the chunks before it.

Importing this package costs nothing and changes nothing of the process; MLX loads with the first module that needs it. On a
Linux CPU a program is many times faster if it begins with `from mlx_lvm.core.linux_cpu import tune; tune()`, as `lvm` does.
"""

__version__ = "0.1.0"
