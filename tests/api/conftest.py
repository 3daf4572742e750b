"""A command's JSON."""

import json
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def lvm_json(lvm: Callable[..., Any]) -> Callable[..., dict]:
    """lvm_json("predict", "amn", ...) -> the object that the command prints."""

    def run(*arguments: object) -> dict:
        ran = lvm(*arguments, "--json")
        assert ran.code == 0, ran.err
        return json.loads(ran.out)

    return run
