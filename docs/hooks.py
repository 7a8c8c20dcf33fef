"""What the site has that no page of ``docs/`` holds: made when it is built (``make docs``).

The home page is the README, so that the two can't differ; changes, contributing and the examples
are the files of those names; the command line is asked for its help; formulas become MathML, which
browsers show without a script; pictures of the gallery are drawn (`gallery.py`). At the end every
link of every page is followed, within the site.
"""

from __future__ import annotations

import ast
import html
import re
import sys
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "docs")]

from gallery import PICTURES  # noqa: E402 - beside this file, which isn't on the path before
from links import dead_links  # noqa: E402

_PLACES = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples": "examples.md",
    "docs/": "",
}
"""Where files of the repository lie in the site; what isn't there is named without a link."""


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and pictures that are made here."""
    made: dict[str, str | bytes] = {
        "index.md": _placed(ROOT / "README.md"),
        "contributing.md": _placed(ROOT / "CONTRIBUTING.md"),
        "changelog.md": _placed(ROOT / "CHANGELOG.md"),
        "claims.md": _claims(),
        "examples.md": _examples(),
        "reference/command-line.md": _command_line(),
    }
    for name, draw in PICTURES.items():
        made[f"gallery/{name}"] = draw()
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The hub's marks for formulas as arithmatex reads them, and links out of ``docs/``."""
    markdown = re.sub(r"```math\n(.*?)```", r"$$\n\1$$", markdown, flags=re.DOTALL)
    up = "../" * page.file.src_uri.count("/")
    return re.sub(r"\]\((?:\.\./)+examples/(\w+)\.\w+\)", rf"]({up}examples.md#\1)", markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Formulas as MathML."""
    for tag, display in (("span", "inline"), ("div", "block")):
        content = re.sub(
            rf'<{tag} class="arithmatex">\\[(\[](.*?)\\[)\]]</{tag}>',
            lambda found, shown=display: convert(html.unescape(found[1]).strip(), display=shown),
            content,
            flags=re.DOTALL,
        )
    return content


def on_post_build(config: Any) -> None:
    """Follow every link; a dead one ends the build."""
    dead = dead_links(Path(config["site_dir"]))
    if dead:
        from mkdocs.exceptions import PluginError

        raise PluginError("dead links:\n" + "\n".join(dead))


def _placed(path: Path) -> str:
    """A file of the repository's root with its links as they are in the site."""

    def place(found: re.Match[str]) -> str:
        text, target = found[1], found[2]
        for old, new in _PLACES.items():
            if target.startswith(old):
                return f"[{text}]({new}{'' if new.endswith('.md') else target[len(old) :]})"
        return found[0] if target.startswith(("#", "http")) else text

    image = re.compile(r"(?<!\!)\[((?:!\[[^\]]*\]\([^)]*\)|[^\[\]])*)\]\(([^)\s]+)\)")
    text = path.read_text(encoding="utf-8").replace("](docs/images/", "](images/")
    return image.sub(place, text)


def _claims() -> str:
    """The last section of ``method.md`` as a page of its own, a level higher."""
    text = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    section = text[text.index("\n## 18. ") :].strip("\n# ")
    section = re.sub(r"^##(#+) [\d.]+ ", r"\1# ", section, flags=re.MULTILINE)
    section = section.replace(
        "sections 12, 13, 14.4 and 15.1 have",
        "sections 12, 13, 14.4 and 15.1 of [Method](method.md) have",
    )
    return "# " + section.removeprefix("18. ")


def _examples() -> str:
    parts = [
        "# Examples\n\nEach is run by a test; `examples/` of the repository has them as files."
    ]
    for path in sorted((ROOT / "examples").glob("*.*")):
        source = path.read_text(encoding="utf-8")
        language = {".py": "python", ".toml": "toml"}[path.suffix]
        said = ast.get_docstring(ast.parse(source)) if language == "python" else ""
        body = source.split('"""', 2)[2].strip() if said else source.strip()
        parts.append(f"## {path.name} {{#{path.stem}}}\n\n{said}\n\n```{language}\n{body}\n```")
    return "\n\n".join(parts)


def _command_line() -> str:
    """Every command with its options, as ``--help`` has them."""
    from typer.main import get_command

    from rankwise.cli import app

    parts = [
        "# The command line",
        "`rankwise COMMAND --help` prints the same. `python -m rankwise` is the same program.",
    ]

    def write(command: Any, name: str, level: int) -> None:
        said = command.help or ""
        parts.append(f"{'#' * level} `{name}`" if level > 2 or said else "")
        parts.append(html.escape(said, quote=False))
        rows = [_option(parameter) for parameter in command.params if not parameter.hidden]
        if rows and not hasattr(command, "commands"):
            parts.append("\n".join(["| option | |", "| --- | --- |", *rows]))
        for inner in getattr(command, "commands", {}).values():
            write(inner, f"{name} {inner.name}", level + 1)

    write(get_command(app), "rankwise", 2)
    return "\n\n".join(part for part in parts if part)


def _option(parameter: Any) -> str:
    """A row of a command's table."""
    is_argument = not parameter.opts[0].startswith("-")
    names = [parameter.metavar or parameter.name.upper()] if is_argument else parameter.opts
    said = html.escape(parameter.help or "", quote=False)
    if parameter.default not in (None, False, ()):
        said += f" Default: `{parameter.default}`."
    elif parameter.required and not is_argument:
        said += " Needed."
    cells = [", ".join(f"`{name}`" for name in names), said]
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
