"""Builds the image's file system the way the Dockerfile says, without Docker, and runs its command as Docker would.

Understands what our Dockerfile uses: FROM of Python's slim images, RUN, COPY, WORKDIR, USER, ENV, HEALTHCHECK and CMD.
Needs Linux, root, debootstrap and a Python of the version that FROM names.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

TOOLS = ("debootstrap", "unshare", "nsenter", "chroot", "ip")
# What the slim images have beside Debian's smallest set.
PACKAGES = (
    "ca-certificates,netbase,tzdata,libbz2-1.0,libffi8,liblzma5,libncursesw6,libreadline8,libsqlite3-0,libssl3,"
    "libuuid1,zlib1g"
)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


class Unbuildable(Exception):
    """The image cannot be built on this machine; the text says what is missing."""


@dataclass
class Image:
    """What the Dockerfile says of how to run it.

    Attributes:
        lower: everything but the program's own files; may be kept, as Docker keeps its layers.
        upper: the program's own files.
        work: folder, user and variables of the command.
    """

    lower: Path
    upper: Path
    work: str = "/"
    user: str = "0"
    variables: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)

    def words(self, command: list[str], **variables: str) -> list[str]:
        """A command with the image's variables and in its folder, to be run within its root."""
        said = [f"{name}={value}" for name, value in {**self.variables, **variables}.items()]
        return ["/usr/bin/env", "-i", f"--chdir={self.work}", *said, *command]

    def files(self) -> list[Path]:
        """All files of the image, links left out."""
        paths = (path for root in (self.lower, self.upper) for path in root.rglob("*"))
        return [path for path in paths if path.is_file() and not path.is_symlink()]


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """(instruction, its arguments) in order; lines that go on are joined."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n", " ", text).splitlines()
    pairs = [line.strip().partition(" ") for line in lines if line.strip()]
    return [(name.upper(), rest.strip()) for name, _, rest in pairs]


def build(source: Path, upper: Path, kept: Path) -> Image:
    """Builds the image of a repository.

    Args:
        source: the repository.
        upper: an empty folder for the program's own files.
        kept: folder for what only depends on the Dockerfile and the locked requirements.

    Raises:
        Unbuildable: if something is missing here.
    """
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if os.name == "nt" or os.geteuid() != 0 or missing:
        raise Unbuildable(f"this needs Linux, root, and {', '.join(missing or TOOLS)}")
    steps = instructions(source / "Dockerfile")
    own = next(place for place, (name, rest) in enumerate(steps) if name == "COPY" and rest.endswith(". ."))
    copied = [rest.split()[-2] for name, rest in steps[:own] if name == "COPY"]
    digest = hashlib.sha256(
        json.dumps(steps[:own]).encode() + b"".join((source / name).read_bytes() for name in copied)
    )
    image = Image(kept / digest.hexdigest()[:16], upper)
    whole = image.lower / ".built"
    for place, (name, rest) in enumerate(steps):
        root = image.lower if place < own else upper
        if name == "FROM" and not whole.exists():
            shutil.rmtree(root, ignore_errors=True)
            _base(root, rest)
        elif name == "RUN" and place > own:
            _run(source, image, rest)
        elif name == "RUN" and not whole.exists():
            subprocess.run(["chroot", root, *image.words(["sh", "-c", rest], **_settings())], check=True)
        elif name == "COPY" and (place >= own or not whole.exists()):
            _copy(source, root / image.work.lstrip("/"), rest)
        elif name == "WORKDIR":
            image.work = rest
            (root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif name == "USER":
            image.user = rest
        elif name == "ENV":
            image.variables.update(word.partition("=")[::2] for word in shlex.split(rest))
        elif name == "HEALTHCHECK":
            image.health = json.loads(rest.partition("CMD ")[2])
        elif name == "CMD":
            image.command = json.loads(rest)
        if place + 1 == own:
            whole.touch()
    return image


def _base(root: Path, name: str) -> None:
    """Debian and Python, as ``python:X.Y-slim-bookworm`` has them."""
    found = re.fullmatch(r"python:(\d+\.\d+)-slim-(\w+)", name)
    if found is None:
        raise Unbuildable(f"{name} is none of Python's slim images")
    version, suite = found.groups()
    prefix = _python(version)
    root.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, root], check=True)
    library = f"lib/python{version}"
    for part in ("bin", library):
        (root / "usr/local" / part).mkdir(parents=True, exist_ok=True)
    for link in ("python", "python3", f"python{version}"):
        shutil.copy2(prefix / f"bin/python{version}", root / "usr/local/bin" / link)
    for shared in (prefix / "lib").glob("libpython*"):
        shutil.copy2(shared, root / "usr/local/lib" / shared.name)
    ignored = shutil.ignore_patterns("site-packages", "test", "__pycache__")
    shutil.copytree(prefix / library, root / "usr/local" / library, ignore=ignored, dirs_exist_ok=True)
    (root / "usr/local" / library / "site-packages").mkdir()
    subprocess.run(["chroot", root, "ldconfig"], check=True)
    for file in (CERTIFICATES, Path("/etc/resolv.conf"), Path("/etc/hosts")):
        if file.exists():
            shutil.copyfile(file, root / file.relative_to("/"))
    subprocess.run(["chroot", root, "/usr/local/bin/python", "-m", "ensurepip"], check=True)
    (root / "usr/local/bin/pip").write_text(
        "#!/usr/local/bin/python\nfrom pip._internal.cli.main import main\nmain()\n"
    )
    (root / "usr/local/bin/pip").chmod(0o755)


def _python(version: str) -> Path:
    homes = [
        Path(path)
        for path in (shutil.which(f"python{version}"), *Path.home().glob(f".pyenv/versions/{version}.*"))
        if path
    ]
    for home in homes:
        prefix = home.resolve().parents[1] if home.is_file() else home
        if (prefix / f"lib/python{version}/os.py").exists() and (prefix / f"bin/python{version}").exists():
            return prefix
    raise Unbuildable(f"there is no Python {version} here")


def _settings() -> dict[str, str]:
    """What this machine's pip was told of networks and certificates, as arguments of a build would tell it."""
    wanted = re.compile(r"PIP_|HTTPS?_PROXY|NO_PROXY|ALL_PROXY|SSL_CERT_FILE", re.IGNORECASE)
    return {name: value for name, value in os.environ.items() if wanted.match(name)}


def _run(source: Path, image: Image, command: str) -> None:
    """A RUN after the program's files: our Dockerfile has only a change of owner there."""
    words = shlex.split(command)
    if words[0] != "chown":
        raise Unbuildable(f"RUN {command} after the program's own files is not understood")
    owner, _, group = words[1].partition(":")
    place = image.upper / words[2].lstrip("/")
    users = dict(line.split(":")[:3:2] for line in (image.lower / "etc/passwd").read_text().splitlines())
    groups = dict(line.split(":")[:3:2] for line in (image.lower / "etc/group").read_text().splitlines())
    os.chown(place, int(users[owner]), int(groups[group]))


def _copy(source: Path, target: Path, arguments: str) -> None:
    words = [word for word in arguments.split() if not word.startswith("--")]
    target.mkdir(parents=True, exist_ok=True)
    if words[0] != ".":
        shutil.copy2(source / words[0], target / words[1])
        return
    lines = (source / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]

    def ignored(folder: str, names: list[str]) -> set[str]:
        place = Path(folder).relative_to(source)
        return {name for name in names if any(_matches((place / name).as_posix(), pattern) for pattern in patterns)}

    shutil.copytree(source, target, ignore=ignored, dirs_exist_ok=True)
    if "--chown=studio:studio" in arguments:
        for path in (target, *target.rglob("*")):
            os.chown(path, 1000, 1000)


def _matches(path: str, pattern: str) -> bool:
    anywhere = pattern.startswith("**/")
    return fnmatch.fnmatch(path, pattern) or (anywhere and fnmatch.fnmatch(path.rpartition("/")[2], pattern[3:]))


class Container:
    """The image's command as process 1 of its own namespaces: no network, a read-only root, an empty /tmp.

    Args:
        image: what to run.
        root: an empty folder to put it together in.
        variables: beside the image's.
    """

    def __init__(self, image: Image, root: Path, **variables: str) -> None:
        self.image = image
        merged, changes, scratch = (root / name for name in ("merged", "changes", "scratch"))
        for folder in (merged, changes, scratch):
            folder.mkdir(parents=True)
        layers = f"lowerdir={image.upper}:{image.lower},upperdir={changes},workdir={scratch}"
        script = "\n".join(
            [
                "set -e",
                f"mount -t overlay overlay -o {layers} {merged}",
                f"mount -t proc proc {merged}/proc",
                f"mount -t tmpfs tmpfs {merged}/tmp",
                f"mount --rbind /dev {merged}/dev",
                f"mount -o remount,ro {merged}",
                "ip link set lo up",
                f'exec chroot --userspec={image.user}:{image.user} {merged} "$@"',
            ]
        )
        names = ("--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child")
        words = image.words(image.command, **variables)
        self.process = subprocess.Popen(
            ["unshare", *names, "sh", "-c", script, "sh", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @property
    def first(self) -> int:
        """The number that process 1 has out here; 0 before it is there."""
        number = self.process.pid
        try:
            return int((Path(f"/proc/{number}/task/{number}/children").read_text().split() or ["0"])[0])
        except FileNotFoundError:
            return 0

    def execute(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Runs something beside process 1, as ``docker exec`` does."""
        inside = ["nsenter", "--target", str(self.first), "--mount", "--pid", "--net", "--root", "--wd"]
        who = ["--setuid", self.image.user, "--setgid", self.image.user]
        return subprocess.run([*inside, *who, *self.image.words(command)], capture_output=True, text=True)

    def close(self) -> None:
        """Ends what is left of it."""
        self.process.kill()
        self.process.communicate()
