"""A page of the site for every task, put together from the pages that tell of all of them."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
FOLDER = "environments"
SECTION = re.compile(r"^### (\w+)\n(.*?)(?=^##)", re.M | re.S)
CLASS = re.compile(r"^class (\w+).*?^    name = \"(\w+)\"", re.M | re.S)


def on_config(config: Any) -> Any:
    """Put the pages behind the one on all environments."""
    pages = [{name: f"{FOLDER}/{name}.md"} for name in _sections()]
    for entry in config.nav:
        if entry == {"Environments": "environments.md"}:
            entry["Environments"] = [{"All tasks": "environments.md"}, *pages]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages."""
    for name, text in _sections().items():
        files.append(File.generated(config, f"{FOLDER}/{name}.md", content=_page(name, text)))
    return files


def _sections() -> dict[str, str]:
    return dict(SECTION.findall(_read("docs/environments.md")))


def _page(name: str, text: str) -> str:
    """Return the page of a task: its equations, what is known of its optimum, what methods reach, its parameters."""
    parts = [
        f"# {name}",
        text.strip().replace(f"({FOLDER}/", "("),
        "One episode with random actions, and the optimum, dashed: states, then controls.",
        _commands(name),
        "## What is best",
        _row_of(name, "docs/environments.md"),
        "What each number means is told with [the table of all tasks](../environments.md#optima).",
    ]
    if reached := _row_of(name, "docs/results.md"):
        told = (
            "Median (lowest to highest) over seeds; `actions` is the method of this package. See [the "
            "results](../results.md) for what is compared."
        )
        parts += ["## What methods reach", reached, told]
    return "\n\n".join([*parts, "## Parameters", f"::: {_class(name)}", ""])


def _commands(name: str) -> str:
    recipe = name if (ROOT / "configs" / f"{name}.yaml").is_file() else f"common --data.env {name}"
    run = f"runs/{name}/version_0/checkpoints/last.ckpt"
    lines = [f"lit-awm fit --config {recipe}", f"lit-awm play {run}", f"lit-awm oracle {name}"]
    return "\n".join(["```bash", *lines, "```"])


def _row_of(name: str, page: str) -> str:
    """Return a table of what the first row of the page that begins with the name has, or nothing without one."""
    head: list[str] = []
    for line, following in pairwise([*_read(page).splitlines(), ""]):
        if following.startswith("|---"):
            head = _cells(line)
        elif line.startswith(f"| {name} |"):
            rows = [f"| {column} | {cell} |" for column, cell in zip(head, _cells(line), strict=True) if cell]
            return "\n".join([rows[0], "|---|---|", *rows[1:]])
    return ""


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def _class(name: str) -> str:
    for path in sorted((ROOT / "lit_awm" / "envs").rglob("*.py")):
        found = {named: cls for cls, named in CLASS.findall(path.read_text(encoding="utf-8"))}
        if name in found:
            return ".".join([*path.relative_to(ROOT).with_suffix("").parts, found[name]])
    raise ValueError(f"docs/environments.md must describe tasks of lit_awm.envs, got {name!r}.")


def _read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")
