"""The repository keeps its own promises: who may import whom, what is pinned, and what the README says of itself."""

from __future__ import annotations

import ast
import graphlib
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("memorygan", "editing", "app")

# --- Imports go one way: app → editing → memorygan -------------------------------------------------------------------

FORBIDDEN = {
    "memorygan": {"app", "editing", "gradio", "open_clip", "facenet_pytorch"},
    "editing": {"app", "gradio"},
    "app": set(),
}
needs_app = pytest.mark.skipif(not list((ROOT / "app").glob("*.py")), reason="the page is not part of this checkout")
# Not for everyone to install: a Space brings it along.
OPTIONAL_IMPORTS = {"spaces"}
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imported_modules(source: str, package: str) -> Iterator[tuple[int, str]]:
    """Yield (line, absolute module name) for every import in ``source``, inside functions and `if` blocks too.

    ``package`` is the dotted package the file lies in; relative imports are resolved against it. ``from a import b``
    yields both ``a`` and ``a.b``, because ``b`` may be a module.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                above = parents[: len(parents) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            yield node.lineno, base
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}" if base else alias.name


def forbidden_imports(source: str, package: str) -> list[str]:
    """Return ``line: module`` for each import that ``package``'s place in the house does not allow."""
    forbidden = FORBIDDEN[package.split(".")[0]]
    return [f"{line}: {name}" for line, name in imported_modules(source, package) if name.split(".")[0] in forbidden]


def package_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).parent.parts)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_go_one_way(path):
    assert forbidden_imports(path.read_text(encoding="utf-8"), package_of(path)) == []


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("memorygan", "import gradio as gr"),
        ("memorygan.training", "def f():\n    from editing.service import EditingService"),
        ("memorygan.training", "from ... import editing"),
        ("memorygan", "try:\n    import open_clip.model\nexcept ImportError:\n    pass"),
        ("editing.guidance", "from app import create_demo"),
    ],
)
def test_a_forbidden_import_is_noticed_wherever_it_hides(package, source):
    assert forbidden_imports(source, package)


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("app", "import gradio\nfrom editing.service import EditingService\nfrom memorygan.parts import PARTS"),
        ("editing.guidance", "import open_clip\nfrom memorygan import generator\nfrom ..recipe import Recipe"),
        ("memorygan.training", "from ..config import PRESETS\nfrom . import data\nfrom application import x"),
    ],
)
def test_an_allowed_import_is_left_alone(package, source):
    assert forbidden_imports(source, package) == []


# --- and between rooms as docs/house.md draws them --------------------------------------------------------------------

WORKSHOP = ("training", "analysis")


def room_of(module: str) -> str | None:
    """The room of docs/house.md a module lies in; None for a package as a whole, and for what others wrote."""
    package, *rest = module.split(".")
    if package == "memorygan":
        return "workshop" if rest and rest[0] in WORKSHOP else "memorygan"
    return "app" if package == "app" else rest[0] if package == "editing" and rest else None


def drawn_arrows(page: str) -> dict[str, set[str]]:
    """Room → rooms that an arrow leads to."""
    (picture,) = re.findall(r"```mermaid\n(.*?)```", page, flags=re.DOTALL)
    arrows: dict[str, set[str]] = {}
    for start, end in re.findall(r"^ *(\w+)(?:\[.*?\])? --> (\w+)", picture, flags=re.MULTILINE):
        arrows.setdefault(start, set()).add(end)
    return arrows


def below(room: str, arrows: dict[str, set[str]]) -> set[str]:
    """Every room that arrows lead to, over any number of others."""
    found, left = set[str](), [room]
    while left:
        for lower in arrows.get(left.pop(), set()) - found:
            found.add(lower)
            left.append(lower)
    return found


@lru_cache
def imports_of_rooms() -> dict[tuple[str, str], str]:
    """(importing room, imported room) → one place where that happens."""
    found = {}
    for path in SOURCES:
        room = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
        for line, name in imported_modules(path.read_text(encoding="utf-8"), package_of(path)):
            other = room_of(name)
            if room and other and room != other:
                found[room, other] = f"{path.relative_to(ROOT)}:{line} imports {name}"
    return found


ARROWS = drawn_arrows((ROOT / "docs" / "house.md").read_text(encoding="utf-8"))


def test_rooms_import_only_what_lies_below_them_in_the_picture():
    upstairs = [place for (room, other), place in imports_of_rooms().items() if other not in below(room, ARROWS)]
    assert upstairs == [], "import from below, or draw an arrow in docs/house.md"
    assert not any(room in below(room, ARROWS) for room in ARROWS), "a picture with a circle has no floors"


def test_every_arrow_in_the_picture_is_an_import():
    real = imports_of_rooms()
    assert [f"{room} --> {other}" for room in ARROWS for other in ARROWS[room] if (room, other) not in real] == []


def test_every_file_and_folder_that_the_page_of_the_house_names_is_there():
    named = re.findall(r"`([\w./-]+(?:/|\.py|\.js|\.md))`", (ROOT / "docs" / "house.md").read_text(encoding="utf-8"))
    there = [path for folder in (*PACKAGES, "docs") for path in (ROOT / folder, *(ROOT / folder).rglob("*"))]
    known = {f"/{path.relative_to(ROOT).as_posix()}{'/' if path.is_dir() else ''}" for path in there}
    assert len(named) > 30
    assert [name for name in named if not any(path.endswith(f"/{name}") for path in known)] == []


def test_an_import_upstairs_would_be_noticed():
    arrows = drawn_arrows('```mermaid\nflowchart TD\n    a["x<br>y"] --> b\n    b --> c\n```')
    assert arrows == {"a": {"b"}, "b": {"c"}}
    assert below("a", arrows) == {"b", "c"} and below("c", arrows) == set()
    assert room_of("editing.face.state") == "face" and room_of("memorygan.analysis.smse") == "workshop"
    assert room_of("editing") is None and room_of("torch.nn") is None


def test_no_file_imports_itself_over_others():
    """Imports at the top of files; one inside a function is resolved when everything is there."""
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in SOURCES}
    graph = {}
    for module, path in modules.items():
        top = ast.parse(path.read_text(encoding="utf-8")).body
        source = "\n".join(ast.unparse(node) for node in top if isinstance(node, (ast.Import, ast.ImportFrom)))
        graph[module] = {name for _, name in imported_modules(source, package_of(path)) if name in modules} - {module}
    list(graphlib.TopologicalSorter(graph).static_order())  # a CycleError names the circle


# --- Dependencies: ranges, pins, and what the code really imports ----------------------------------------------------

# Every kind of machine the locks are for, as packaging's marker variables.
ENVIRONMENTS = [
    {
        "python_version": python,
        "python_full_version": f"{python}.1",
        "sys_platform": platform,
        "platform_system": system,
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
        "os_name": "nt" if platform == "win32" else "posix",
        "extra": "",
    }
    for python, (platform, system, machine) in itertools.product(
        ("3.10", "3.11", "3.12", "3.13"),
        (
            ("linux", "Linux", "x86_64"),
            ("linux", "Linux", "aarch64"),
            ("darwin", "Darwin", "arm64"),
            ("win32", "Windows", "AMD64"),
        ),
    )
]


@lru_cache
def requirements(name: str) -> list[Requirement]:
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line]


def pins(name: str, environment: dict[str, str]) -> dict[str, list[str]]:
    """Return, for one kind of machine, package → versions the lock pins it to there."""
    found: dict[str, list[str]] = {}
    for requirement in requirements(name):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (specifier,) = requirement.specifier
            found.setdefault(canonicalize_name(requirement.name), []).append(specifier.version)
    return found


LOCKS = ("requirements.lock", "requirements-train.lock", "requirements-dev.lock")


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_nothing_but_exact_versions(name):
    for requirement in requirements(name):
        assert requirement.url is None, f"{requirement} is taken from an address"
        operators = [specifier.operator for specifier in requirement.specifier]
        # `===` keeps a build tagged +cpu from standing in for the plain one; torchvision has to follow torch in that.
        plain = {"torch", "torchvision"}
        assert operators == ["===" if requirement.name in plain else "=="], f"{requirement} is not exact"


@pytest.mark.parametrize(
    "environment", ENVIRONMENTS, ids=lambda e: f"{e['python_version']}-{e['platform_system']}-{e['platform_machine']}"
)
def test_the_locks_fit_the_ranges_and_each_other(environment):
    run, train, dev = (pins(name, environment) for name in LOCKS)

    twice = {package: versions for package, versions in (run | train | dev).items() if len(versions) > 1}
    assert twice == {}
    for name, lock in (("requirements.txt", run), *((name, train) for name in EXTRAS)):
        for requirement in requirements(name):
            versions = lock.get(canonicalize_name(requirement.name), [])
            assert versions, f"{requirement.name} has no pin here; run `make lock`"
            fits = requirement.specifier.contains(versions[0])
            assert fits, f"{requirement} is pinned to {versions[0]}; run `make lock`"
    for one, other in itertools.combinations((run, train, dev), 2):
        assert {package: one[package] for package in one.keys() & other.keys() if one[package] != other[package]} == {}


# What only these need is not installed for the page.
EXTRAS = ("requirements-analysis.txt", "requirements-train.txt")
SERVE = "requirements-serve.txt"  # of app/cluster alone; from a cluster's own index as often as not, so without a lock
WORKSHOPS = ("memorygan/training", "memorygan/analysis", "editing/studies", "editing/guidance/training")


def distributions_of(*files: str) -> set[str]:
    return {canonicalize_name(requirement.name) for name in files for requirement in requirements(name)}


def test_every_imported_library_is_a_declared_requirement():
    """A library that is only there because another one needs it may be gone with that one's next version."""
    to_run, extra = distributions_of("requirements.txt"), distributions_of(*EXTRAS)
    distributions = packages_distributions()
    undeclared = set()
    for path in SOURCES:
        workshop = path.relative_to(ROOT).as_posix().startswith(WORKSHOPS)
        clustered = path.relative_to(ROOT).as_posix().startswith("app/cluster/")
        declared = to_run | (extra if workshop else distributions_of(SERVE) if clustered else set())
        for line, name in imported_modules(path.read_text(encoding="utf-8"), package_of(path)):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or top in PACKAGES or top in OPTIONAL_IMPORTS:
                continue
            if not declared & {canonicalize_name(owner) for owner in distributions.get(top, [top])}:
                undeclared.add(f"{path.relative_to(ROOT)}:{line}: {top}")
    assert sorted(undeclared) == []


@needs_app
def test_the_page_needs_nothing_that_only_training_or_analysis_needs():
    run, train = (pins(name, ENVIRONMENTS[0]).keys() for name in LOCKS[:2])
    owners = packages_distributions()
    absent = [name for name, of in owners.items() if {canonicalize_name(owner) for owner in of} <= train - run]
    assert {"matplotlib", "scipy", "sklearn", "tensorboard", "torch_fidelity"} <= set(absent)
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({absent}))\n"
        "import app.cli, app.page\n"
        "from memorygan.analysis.complexity import main\n"
        "assert main(['--preset', 'tiny-32', '--parts', '1']) == 2"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "`make train` installs it" in done.stderr


# --- README: the card of the Space, and links ------------------------------------------------------------------------

CARD_KEYS = {
    "title",
    "emoji",
    "colorFrom",
    "colorTo",
    "sdk",
    "sdk_version",
    "python_version",
    "suggested_hardware",
    "app_file",
    "fullWidth",
    "short_description",
    "models",
    "datasets",
    "tags",
    "pinned",
    "license",
    "startup_duration_timeout",
    "preload_from_hub",
}
CARD_COLORS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


@pytest.fixture(scope="module")
def card() -> dict[str, str]:
    """The front matter by which a Hugging Face Space is set up."""
    opening, front_matter, _ = (ROOT / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    assert opening == "", "the front matter has to be the first thing in README.md"
    return yaml.safe_load(front_matter)


def test_the_card_of_the_space_is_valid(card):
    assert card.keys() - CARD_KEYS == set()
    assert card["sdk"] == "gradio"
    assert {card["colorFrom"], card["colorTo"]} <= CARD_COLORS
    # The hub refuses a longer one.
    assert len(card["short_description"]) <= 60


def test_the_card_of_the_space_names_the_versions_that_are_tested_here(card):
    (gradio,) = pins("requirements.lock", ENVIRONMENTS[0])["gradio"]
    assert card["sdk_version"] == gradio
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    match = re.search(r'^requires-python = "(.+)"$', project, re.MULTILINE)
    assert match is not None
    # A YAML number would turn 3.10 into 3.1.
    assert isinstance(card["python_version"], str)
    assert SpecifierSet(match[1]).contains(card["python_version"])


@needs_app
def test_the_program_a_space_starts_runs_as_a_plain_script(card, tmp_path):
    """A Space runs `python <app_file>`, which puts the file's own folder on the path instead of the repository."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(ROOT / card["app_file"]), "--help"]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert "usage" in run.stdout.lower()


def test_links_between_pages_lead_somewhere():
    broken = []
    for page in [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        *sorted((ROOT / "docs").rglob("*.md")),
        *sorted((ROOT / "weights").rglob("*.md")),
    ]:
        # [text](target) and ![text](target), without what lies inside code fences.
        prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", prose):
            if not re.match(r"[a-z]+:|#", target) and not (page.parent / target.split("#")[0]).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert broken == []
