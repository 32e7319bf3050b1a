"""The commands of this repository: each has its one body here, and hatch scripts and `.ci/run` call it.

`NOX_DEFAULT_VENV_BACKEND=none` says that the active environment has everything (the hatch environment sets it):
sessions then run in place. Without it each session builds an environment of its own, and the tests run on every
Python that is installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nox

ROOT = Path(__file__).parent
PACKAGES = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))
PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
IN_PLACE = os.environ.get("NOX_DEFAULT_VENV_BACKEND") == "none"
OWN_VENV = "uv|virtualenv"

#: What the names of packages have whose tests run on a server of theirs.
SERVERS = {"consul", "etcd", "kafka", "nats", "rabbitmq", "redis"}

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = OWN_VENV
nox.options.download_python = "never"
nox.options.sessions = ["lint", "tests", "docs"]

# Runs in an environment that has nothing but the built packages and what they depend on.
CHECK_INSTALLED = """
import importlib, importlib.metadata, importlib.resources, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    assert importlib.resources.files(name).joinpath("py.typed").is_file(), f"{name}: no py.typed"
for entry_point in importlib.metadata.entry_points(group="pymicro.plugins"):
    entry_point.load()
"""


def install(session: nox.Session, *groups: str) -> None:
    """Install every package editable and the named dependency groups, unless the session runs in place."""
    if not session.virtualenv.is_sandboxed:
        return
    editable = [argument for package in PACKAGES for argument in ("-e", str(package))]
    session.install(*editable, *nox.project.dependency_groups(PYPROJECT, *groups))


@nox.session(python=None if IN_PLACE else ["3.11", "3.12", "3.13", "3.14"])
def tests(session: nox.Session) -> None:
    """Run the tests of the packages, across packages, of the examples and of the documentation's snippets."""
    install(session, "test")
    if session.posargs:
        session.run("python", "-m", "pytest", *session.posargs)
        return
    # The plugins' tests wait for their servers most of the time, so they run beside all others, in a second process.
    plugins = [str(path.relative_to(ROOT)) for path in PACKAGES if SERVERS.intersection(path.name.split("-"))]
    with meanwhile(session, "python", "-m", "pytest", *plugins):
        session.run("python", "-m", "pytest", *(f"--ignore={path}" for path in plugins))


@contextmanager
def meanwhile(session: nox.Session, program: str, *arguments: str) -> Iterator[None]:
    """Run a program beside the body; then show what it wrote, and fail the session if it failed."""
    found = shutil.which(program, path=os.pathsep.join(session.bin_paths or [os.environ["PATH"]])) or program
    with tempfile.TemporaryFile() as output:
        other = subprocess.Popen([found, *arguments], stdout=output, stderr=subprocess.STDOUT, cwd=ROOT)
        try:
            yield
        finally:
            status = other.wait()
            output.seek(0)
            shutil.copyfileobj(output, sys.stdout.buffer)
            sys.stdout.flush()
    if status:
        session.error(f"{program} {' '.join(arguments)} ended with {status}")


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the tests of the core and demand that they cover its branches."""
    install(session, "test")
    # Not pytest-cov: the pytest plugin of pymicro-testing imports the core before that one starts to measure.
    session.run("coverage", "run", "-m", "pytest", "-q", "packages/pymicro-core", *session.posargs)
    session.run("coverage", "report")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format, layers and types."""
    install(session, "test", "lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports", "--no-cache")
    session.run("mypy", "template/new_plugin.py")
    session.run("mypy", "docs/check.py", *(str(package.relative_to(ROOT) / "src") for package in PACKAGES))
    session.run("mypy", "benchmarks")
    for example in sorted({path.parent for path in ROOT.glob("examples/*/*.py")}):
        session.run("mypy", str(example.relative_to(ROOT)))  # one by one: each example is a program of its own


@nox.session
def docs(session: nox.Session) -> None:
    """Check the links between Markdown files and that the generated reference is up to date."""
    install(session, "test")
    session.run("python", "docs/check.py", *session.posargs)


@nox.session(venv_backend=OWN_VENV)
def build(session: nox.Session) -> None:
    """Build every package into dist/, install the wheels in a clean environment and import them."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "build"))
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    for package in PACKAGES:
        session.run("python", "-m", "build", "--no-isolation", "--outdir", str(dist), str(package), silent=True)
    clean = Path(session.create_tmp()) / "clean"
    session.run("python", "-m", "venv", "--clear", str(clean))
    python = str(clean / ("Scripts" if os.name == "nt" else "bin") / "python")
    wheels = sorted(dist.glob("*.whl"))
    # Wheels named as files cannot be replaced by a release on the index; only their dependencies come from there.
    session.run(python, "-m", "pip", "install", "-q", *map(str, wheels), external=True)
    session.run(python, "-m", "pip", "check", external=True)
    names = [wheel.name.split("-")[0] for wheel in wheels]
    imports = ["pymicro" if name == "pymicro_core" else name for name in names]
    session.run(python, "-I", "-W", "error", "-c", CHECK_INSTALLED, *imports, external=True)
