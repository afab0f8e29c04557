"""Every command lets OpenMP's waiting threads sleep, before torch reads how, unless the person has said otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from memorygan.openmp import POLICY, SPINNING, wait_briefly

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("package", ["app", "editing", "memorygan"])
def test_importing_a_package_comes_before_torch(package):
    code = (
        f"import os, sys, {package}; assert 'torch' not in sys.modules; "
        f"assert {{name: os.environ.get(name) for name in {[*SPINNING]}}} == {SPINNING}"
    )
    plain = {name: value for name, value in os.environ.items() if name not in (*SPINNING, POLICY)}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=plain, check=True)


def test_what_the_person_has_set_stays():
    mine = {"GOMP_SPINCOUNT": "infinite"}
    wait_briefly(mine, "aarch64")
    assert mine == {**SPINNING, "GOMP_SPINCOUNT": "infinite"}
    policy = {POLICY: "active"}
    wait_briefly(policy, "aarch64")
    assert policy == {POLICY: "active"}


@pytest.mark.parametrize(
    ("machine", "mine", "wanted"),
    [("x86_64", {}, "1"), ("AMD64", {}, "1"), ("x86_64", {"OPENBLAS_NUM_THREADS": "4"}, "4"), ("arm64", {}, None)],
)
def test_numpys_products_take_one_thread_where_torch_has_a_library_of_its_own(machine, mine, wanted):
    environment = dict(mine)
    wait_briefly(environment, machine)
    assert environment.get("OPENBLAS_NUM_THREADS") == wanted
