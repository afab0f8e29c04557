"""A snapshot reaches a Space from a fresh clone, with every binary file in Git LFS."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# As a Space does it: no binary file that is not a pointer of LFS.
REFUSING = """#!/bin/sh
while read -r old new ref; do
  for blob in $(git rev-list --objects "$new" | cut -d" " -f1); do
    [ "$(git cat-file -t "$blob")" = blob ] || continue
    size=$(git cat-file blob "$blob" | wc -c)
    text=$(git cat-file blob "$blob" | tr -d "\\000" | wc -c)
    [ "$size" = "$text" ] || { echo "rejected because it contains binary files" >&2; exit 1; }
  done
done
"""


def git(*words: object, cwd: Path) -> str:
    done = subprocess.run(["git", *map(str, words)], cwd=cwd, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Path:
    if not (ROOT / ".git").exists() or shutil.which("make") is None or os.name == "nt":
        pytest.skip("this needs make, and the repository with its history")
    if subprocess.run(["git", "lfs", "version"], capture_output=True).returncode:
        pytest.skip("Git LFS is not installed")
    # Nobody's settings: neither a name nor LFS.
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "none"))
    git("clone", "--quiet", "--depth", "1", ROOT.as_uri(), tmp_path / "clone", cwd=tmp_path)
    return tmp_path / "clone"


def test_a_snapshot_is_taken_by_a_space_that_refuses_binary_files(clone, tmp_path):
    space = tmp_path / "space.git"
    git("init", "--quiet", "--bare", space, cwd=tmp_path)
    hook = space / "hooks" / "pre-receive"
    hook.write_text(REFUSING)
    hook.chmod(0o755)
    with pytest.raises(subprocess.CalledProcessError):
        git("push", space.as_uri(), "HEAD:main", cwd=clone)
    subprocess.run(["make", "space", f"SPACE={space.as_uri()}"], cwd=clone, check=True, capture_output=True)
    git("clone", "--quiet", "--branch", "main", space.as_uri(), tmp_path / "there", cwd=tmp_path)
    git("lfs", "install", "--local", cwd=tmp_path / "there")
    git("lfs", "pull", cwd=tmp_path / "there")
    for name in ("app/__main__.py", "README.md", "requirements.txt", "weights/people-128.safetensors"):
        here, there = ((folder / name).read_bytes() for folder in (clone, tmp_path / "there"))
        assert hashlib.sha256(here).digest() == hashlib.sha256(there).digest(), name
    assert not (tmp_path / "there" / "tests").exists()
    assert git("rev-list", "--count", "HEAD", cwd=tmp_path / "there").strip() == "1"


def test_without_the_name_of_a_space_the_sentence_says_how_to_give_it(clone):
    done = subprocess.run(["make", "space"], cwd=clone, capture_output=True, text=True)
    assert done.returncode != 0 and "SPACE=" in done.stderr
