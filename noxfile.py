"""All that a contributor or a machine runs: ``python -m nox -l`` lists the sessions."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "docs", "tests", "program", "package"]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = False  # of `versions`
CONSTRAINTS = "--constraint=constraints.txt"
PYTEST = ("python", "-m", "pytest", "-n", "auto", "--dist", "worksteal")  # some tests take minutes


def install(session: nox.Session, extra: str) -> None:
    """Install the package in place, with an extra, at the versions that are known to work together."""
    session.install(CONSTRAINTS, "--editable", f".[{extra}]" if extra else ".")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the unit tests and the examples in the docstrings."""
    install(session, "test")
    session.run(*PYTEST, "--doctest-modules", "tests", "lit_awm", *session.posargs)


@nox.session
def program(session: nox.Session) -> None:
    """Run the tests of the program as its users run it: commands, studies, several processes, examples in the pages."""
    install(session, "test")
    session.run(*PYTEST, "-m", "program and not slow", "tests", *session.posargs)


@nox.session(python=["3.10", "3.11", "3.12", "3.13"])
def versions(session: nox.Session) -> None:
    """Run all tests but the slow ones on every Python that is installed; `-- tests/models` runs some of them."""
    install(session, "test")
    session.run(*PYTEST, "-m", "not slow", *(session.posargs or ["tests"]))


@nox.session
def lowest(session: nox.Session) -> None:
    """Run all tests but the slow ones with the lowest versions that are allowed.

    Of all dependencies but PyTorch, and of `offline`: the other extras' lowest versions exclude each other.
    """
    project = nox.project.load_toml("pyproject.toml")["project"]
    allowed = [*project["dependencies"], *project["optional-dependencies"]["offline"]]
    pins = [re.sub(r"(\[.*\])?>=([\w.]+).*", r"==\2", each.partition(";")[0]) for each in allowed]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        torch = [line for line in Path("constraints.txt").read_text().splitlines() if line.startswith("torch==")]
        print(*torch, *(pin for pin in pins if not pin.startswith("torch=")), sep="\n", file=constraints, flush=True)
        session.install("--constraint", constraints.name, "--editable", ".[test]")
    session.run(*PYTEST, "-m", "not slow", *(session.posargs or ["tests"]))


@nox.session
def slow(session: nox.Session) -> None:
    """Run the tests that learn for minutes."""
    install(session, "test")
    session.run(*PYTEST, "-m", "slow", "tests", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Learn to treat cancer almost optimally, in a few minutes on two cores."""
    install(session, "")
    session.run("lit-awm", "fit", "--config", "cancer_treatment", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    session.install(CONSTRAINTS, "ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types in the package as users get it: from a wheel."""
    install_wheel(session, "types")
    with tempfile.TemporaryDirectory() as folder, session.chdir(folder):
        session.run(
            "python", "-m", "mypy", "--config-file", str(Path(__file__).parent / "pyproject.toml"), "-p", "lit_awm"
        )


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site into `site/`; a warning is an error."""
    session.install(CONSTRAINTS, *nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"]["docs"])
    session.run("mkdocs", "build", "--quiet", *session.posargs, env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def package(session: nox.Session) -> None:
    """Build wheel and sdist, install each afresh, and run a recipe by name from an empty folder."""
    for kind in ("wheel", "sdist"):
        install_wheel(session, "", kind)
        with tempfile.TemporaryDirectory() as folder, session.chdir(folder):
            session.run("lit-awm", "envs")
            session.run("lit-awm", "fit", "--config", "cancer_treatment", "--trainer.fast_dev_run", "2")
            session.run("python", "-c", "import lit_awm.callbacks, lit_awm.configs")


def install_wheel(session: nox.Session, extra: str, kind: str = "wheel") -> None:
    """Build a distribution in a temporary folder and install it."""
    session.install(CONSTRAINTS, "build")
    folder = Path(session.create_tmp()) / "dist"
    shutil.rmtree(folder, ignore_errors=True)
    session.run("python", "-m", "build", f"--{kind}", "--outdir", str(folder))
    (archive,) = folder.iterdir()
    session.install(CONSTRAINTS, "--force-reinstall", "--no-deps", str(archive))
    session.install(CONSTRAINTS, f"{archive}[{extra}]" if extra else str(archive))
