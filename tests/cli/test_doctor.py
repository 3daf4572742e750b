import json
from collections.abc import Callable

import pytest

from mlx_lvm.backend import mx
from mlx_lvm.doctor import tf32_active


def test_doctor_says_what_runs(lvm: Callable) -> None:
    out = lvm("doctor", "--json")
    assert out.code == 0
    checks = json.loads(out.out)["checks"]
    assert {"versions", "device", "memory", "blas", "tf32", "compiler"} <= set(checks)
    assert checks["blas"]["value"]["gflops"] > 0.5 and checks["versions"]["value"]["mlx"] == mx.__version__
    assert "GFLOP/s" in lvm("doctor").out


def test_the_tf32_probe_sees_rounded_products(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not tf32_active() or mx.default_device() != mx.Device(mx.cpu)

    real = mx.eye
    monkeypatch.setattr(mx, "eye", lambda n: real(n) * (1 - 2.0**-11))  # a product as wrong as TF32's
    assert tf32_active()
