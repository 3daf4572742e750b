"""The tables of docs/mac.md: kernels counted in MLX's graph and step times computed from them. python
benchmarks/kernels.py
"""

import argparse

from mlx_lvm.bench.kernels import markdown

if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(markdown())
