"""The picture of `synfin top` in the documents: what the program shows of the example captures, as an SVG."""

from __future__ import annotations

import html
import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "images" / "top.svg"
_WIDTH, _LINES = 110, 26
#: What rich puts into its pictures: a font from a foreign host. Any of the reader's will do.
_FOREIGN_FONT = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)
_FONT = "ui-monospace, Menlo, Consolas, monospace"
#: The first line tells how old the rows are.
_FIRST_LINE = re.compile(r"<text[^>]*line-0\)[^>]*>[^<]*</text>")
_CELL = 12.2  # the width of a character in rich's pictures
_TEXT = re.compile(
    r'<text class="([\w-]+)" x="([\d.]+)" y="([\d.]+)" textLength="[\d.]+" clip-path="([^"]+)">([^<]*)</text>'
)
_WORDS = re.compile(r"[^\xa0]+(?:\xa0[^\xa0]+)*")


def picture() -> str:
    """The program's own output, with its colours; the picture that is there, if it differs in nothing but its first line."""
    with tempfile.TemporaryDirectory() as place:
        _synfin(place, "track", str(ROOT / "examples"), "-o", "rows", "--by", "service", "--by", "client")
        shown = _synfin(place, "top", "rows", "--once", "--window", "5m", "--sort", "failed")
    console = Console(record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi(shown))
    svg = console.export_svg(title="synfin top rows", unique_id="top")
    fresh = (
        _TEXT.sub(_placed, _FOREIGN_FONT.sub("", svg))
        .replace("Fira Code, monospace", _FONT)
        .replace("Fira Code", _FONT)
    )
    old = PICTURE.read_text() if PICTURE.exists() else ""
    return old if _FIRST_LINE.sub("", old) == _FIRST_LINE.sub("", fresh) else fresh


def _placed(match: re.Match[str]) -> str:
    # Each group of words at its own place: not every program that draws keeps spaces.
    name, x, y, clip, text = match.groups()
    plain = html.unescape(text)
    return "".join(
        f'<text class="{name}" x="{float(x) + word.start() * _CELL:.1f}" y="{y}" textLength="{len(word[0]) * _CELL:.1f}" '
        f'clip-path="{clip}">{html.escape(word[0])}</text>'
        for word in _WORDS.finditer(plain)
    )


def _synfin(place: str, *arguments: str) -> str:
    size = {
        "COLUMNS": str(_WIDTH),
        "LINES": str(_LINES),
        "FORCE_COLOR": "1",
        "COLORTERM": "truecolor",
        "TERM": "xterm-256color",
    }
    environment = {**os.environ, **size, "PYTHONPATH": str(ROOT / "src"), "LC_ALL": "C.UTF-8"}
    environment.pop("NO_COLOR", None)
    line = [sys.executable, "-m", "synfin", *arguments]
    return subprocess.run(line, cwd=place, env=environment, capture_output=True, text=True, check=True).stdout.rstrip(
        "\n"
    )
