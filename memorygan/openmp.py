"""How long threads that wait keep their core. Libraries read it once, when they are loaded, so this comes before torch.

Between two parallel loops the threads of a pool spin, GNU's some milliseconds, Intel's and LLVM's 200. Beside other
busy programs they spin on the cores that the loop's last thread waits for, and everything takes 10 to 45 times as long.
"""

from __future__ import annotations

import os
import platform
from collections.abc import MutableMapping

# GNU's libgomp (torch on Linux) counts rounds, Intel's and LLVM's libomp (macOS, Windows) milliseconds; 1 is too many.
SPINNING = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"}
POLICY = "OMP_WAIT_POLICY"  # the standard's own word for it, which both understand
# NumPy's OpenBLAS has a pool of its own, which spins beside torch's for products that one thread is done with sooner.
# On x86 torch computes with MKL; on ARM with OpenBLAS, whose threads it needs.
PRODUCTS = {"OPENBLAS_NUM_THREADS": "1"}
_X86 = ("x86_64", "amd64")


def wait_briefly(environment: MutableMapping[str, str] = os.environ, machine: str = platform.machine()) -> None:
    """Lets waiting threads sleep after some microseconds, in this process and those it starts.

    What the person has set stays, be it one of these variables or OMP_WAIT_POLICY. Where a process has more threads in
    its pools than there are cores, libgomp spins even less by itself, and still does.
    """
    if POLICY not in environment:
        for name, value in SPINNING.items():
            environment.setdefault(name, value)
    if machine.lower() in _X86:
        for name, value in PRODUCTS.items():
            environment.setdefault(name, value)
