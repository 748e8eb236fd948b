"""Pages of the site that lie elsewhere in the repository: the README is the first one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "CODE_OF_CONDUCT.md": "conduct.md",
}
ROLE = re.compile(r":(?:class|func|meth|data|mod):<code>~?([\w.]+)</code>")
LANGUAGES = {".py": "python", ".yaml": "yaml"}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages."""
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_with_links(text)))
    files.append(File.generated(config, "examples.md", content=_examples()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let pages refer to each other as the site has them."""
    return _with_links(markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Make links of what docstrings refer to, and drop the second colon before their examples."""
    return ROLE.sub(_as_link, html.replace("::</p>", ":</p>"))


def _as_link(role: re.Match[str]) -> str:
    name = role[1].rpartition(".")[2]
    return f'<autoref optional identifier="{role[1]}"><code>{name}</code></autoref>'


def _with_links(text: str) -> str:
    text = re.sub(r"\]\((?:docs/|\.\./docs/)", "](", text)
    for source, page in PAGES.items():
        text = re.sub(rf"\]\((?:\.\./)?{re.escape(source)}", f"]({page}", text)
    return text.replace("](examples)", "](examples.md)")


def _examples() -> str:
    parts = ["# Parts in projects of your own", "The files of the folder `examples/`, which are tested as they stand."]
    for path in sorted((ROOT / "examples").iterdir()):
        if path.suffix in LANGUAGES:
            parts += [f"## {path.name}", f"```{LANGUAGES[path.suffix]}\n{path.read_text(encoding='utf-8')}```"]
    return "\n\n".join(parts) + "\n"
