"""mkdocs: README.md and other pages outside of docs/ join the site, and links to files of the repository are followed.

A page outside of docs/ is one of `PAGES`. Any other file that a page links to, a plot or a source file, is copied to
`repository/` in the site.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "model_card.md": "model-card.md",
}
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")  # the path of a link or an image, without its anchor


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and files that are not in docs/."""
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        text = _LINK.sub(lambda link: posixpath.relpath(link[1], "docs"), text)  # as if it were in docs/
        files.append(File.generated(config, page, content=text))
    for page in files.documentation_pages():
        for path in _LINK.findall(page.content_string):
            linked = ROOT / "docs" / posixpath.dirname(page.src_uri) / path
            if linked.is_file() and not linked.resolve().is_relative_to(ROOT / "docs"):
                uri = _in_site(os.path.relpath(linked, ROOT / "docs"))
                if files.get_file_from_path(uri) is None:
                    files.append(File.generated(config, uri, abs_src_path=str(linked.resolve())))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to files outside of docs/ to where these are in the site."""
    folder = posixpath.dirname(page.file.src_uri)

    def in_site(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, link[1]))
        return posixpath.relpath(_in_site(path), folder or ".") if path.startswith("../") else link[1]

    return _LINK.sub(in_site, markdown)


def _in_site(path: str) -> str:
    """Where a path outside of docs/, relative to it, is in the site."""
    outside = path.removeprefix("../")
    return PAGES.get(outside, f"repository/{outside}")
