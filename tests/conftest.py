"""What every test shares: fixed seeds, two threads, no display, no calls home, and the browser if there is one."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import memorygan  # noqa: F401 (sets how OpenMP waits, before torch is imported)

# Read when the libraries are imported, so set before any test module imports them.
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import numpy as np
import pytest
import torch
from simulated_gpu import any_gpu  # type: ignore[import-not-found]

from memorygan.checkpoint import load_generator
from memorygan.manifest import default_checkpoint
from memorygan.picture import to_uint8

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MACOS_CHROME = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")


def pytest_configure(config: pytest.Config) -> None:
    # Two, on any machine: sums over a different number of threads round differently.
    torch.set_num_threads(2)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # A browser on a busy machine may miss its time once; the last line counts what was tried again.
    for item in items:
        if item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Start every test from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def gpu() -> Iterator[None]:
    """A GPU; where there is none, a simulated one."""
    with any_gpu():
        yield


@pytest.fixture(scope="session")
def two_bundled_faces() -> np.ndarray:
    """(2, S, S, 3) uint8 faces of the bundled generator; tests that need them are skipped where there is none."""
    path = default_checkpoint()
    if path is None:
        pytest.skip("there is no bundled checkpoint")
    generator = load_generator(path).generator
    with torch.inference_mode():
        return to_uint8(generator.synthesize(generator.sample([7, 12], truncation=0.5)).image)


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """Path of an installed Chromium or Chrome; tests that need one are skipped where there is none.

    The environment variable ``CHROMIUM`` names one that lies elsewhere.
    """
    candidates = [os.environ.get("CHROMIUM"), *map(shutil.which, BROWSERS)]
    if MACOS_CHROME.exists():
        candidates.append(str(MACOS_CHROME))
    for path in candidates:
        if path:
            return path
    pytest.skip("no Chromium or Chrome is installed; the variable CHROMIUM can name one")
