"""The command line as a Mac would run it: python tests/strict/lvm.py train amn --epochs 1"""

import mac

if __name__ == "__main__":
    mac.install()
    from mlx_lvm.cli.main import main

    main()
