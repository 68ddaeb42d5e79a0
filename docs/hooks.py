"""What the site adds to the pages of this folder: the pages at the repository's root, and the files that pages link to."""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import normpath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    "index.md": "README.md",
    "architecture.md": "ARCHITECTURE.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
LINK = re.compile(r"\]\((?!https?:|#|mailto:)(?P<path>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the root and the files that are linked to."""
    texts = {name: rewritten((ROOT / source).read_text(), ".") for name, source in PAGES.items()}
    for name, text in texts.items():
        files.append(File.generated(config, name, content=text))
    for path in sorted(linked_files()):
        files.append(File.generated(config, f"files/{path}", abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links that leave this folder."""
    return markdown if page.file.src_uri in PAGES or page.file.src_uri.startswith("api/") else rewritten(markdown, "docs")


def rewritten(text: str, folder: str) -> str:
    """Return a page of a folder of the repository with links that fit the site."""

    def link(found: re.Match[str]) -> str:
        place = _place(normpath(f"{folder}/{found['path']}"))
        return f"]({place}{found['anchor'] or ''})"

    return LINK.sub(link, text)


def linked_files() -> set[str]:
    """Return the files outside this folder that a page links to, by their path in the repository."""
    pages = [(ROOT / source, ".") for source in PAGES.values()]
    pages += [(page, "docs") for page in (ROOT / "docs").glob("*.md")]
    paths = {normpath(f"{folder}/{found['path']}") for page, folder in pages for found in LINK.finditer(page.read_text())}
    return {path for path in paths if _place(path).startswith("files/") and (ROOT / path).is_file()}


def _place(path: str) -> str:
    pages = {source: name for name, source in PAGES.items()}
    return pages.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else f"files/{path}")
