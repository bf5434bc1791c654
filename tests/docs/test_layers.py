"""Who may import whom (ARCHITECTURE.md): every import and cimport below src/synfin, read from the source text."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "synfin"
FACTS = {"schema", "states", "settings", "errors", "__version__"}
#: Part -> what it may use inside synfin: parts, or single modules.
MAY_USE = {
    "schema": set(),
    "errors": set(),
    "states": {"schema"},
    "settings": {"errors", "schema"},
    "_core": FACTS | {"_core"},
    "stores": set(),
    "sources": {"errors", "stores", "sources", "_core.types", "_core.bytes", "_core.batch"},
    "run": FACTS | {"_core.tracker", "_core.batch", "_core.block", "sources.report", "workers"},
    "workers": FACTS | {"_core.tracker", "_core.batch", "_core.block", "_core.route", "_core.merging"},
    "sidecar": FACTS
    | {"sidecar", "run", "workers", "output", "stores", "sources"}
    | {"_core.tracker", "_core.batch", "_core.block", "_core.merging"},
    "output": FACTS | {"stores", "output", "run", "_core.block"},
    "explain": FACTS | {"explain", "run", "output", "_core.probe", "_core.batch"},
    "api": FACTS | {"run", "output", "sidecar", "sources.captures", "sources.live", "sources.filter", "sources.window"},
    "top": FACTS | {"top", "output", "sidecar", "_core.block"},
    "verify": FACTS | {"verify", "api", "output.render", "reference"},
    "cli": FACTS
    | {"cli", "api", "run", "sidecar", "stores", "output", "explain", "top", "verify"}
    | {"sources.captures", "sources.filter", "sources.paths", "sources.streams", "sources.window"},
    "reference": FACTS | {"reference"},
    "__init__": FACTS | {"api"},
    "__main__": {"cli"},
}
#: The core's files in the order in which they may know each other: each only those before it.
CORE_ORDER = [
    "bytes", "seq", "types", "arena", "wheel", "declared", "flow", "filter", "linktype", "radio", "rare", "link", "ip", "icmp",
    "tunnel", "tcp", "checksum", "decode", "key", "brief", "duplicates", "watch", "sink", "table", "intervals", "parts", "keyed", "listed", "core", "ages", "by", "wide", "data", "machine", "copies",
    "roundtrip", "opening", "closing", "zeek", "others", "border", "row", "record", "segment", "usual", "quote", "sweep", "interim", "memory", "stages", "account", "batch",
    "block", "configure", "snapshot", "route", "ranking", "merging", "tracker", "probe",
]  # fmt: skip
DECODING = {"linktype", "radio", "rare", "link", "ip", "icmp", "tunnel", "tcp", "checksum", "decode"}
PACKET = {"bytes", "types", "declared"}
#: No part below the command line may ask what time it is; the live source must, where no packet tells it or a card does.
TIMELESS = ("_core", "sources", "run")
LIVE = {"sources.live", "sources.timestamps"}
_CIMPORT = re.compile(r"^\s*from\s+([\w.]+)\s+cimport\b|^\s*cimport\s+([\w., ]+)", re.MULTILINE)
_IMPORT = re.compile(r"^\s*from\s+([\w.]+)\s+import\s+([\w, ]+)|^\s*import\s+([\w.]+)", re.MULTILINE)

SOURCES = sorted(path for kind in ("py", "pyi", "pyx", "pxd") for path in PACKAGE.rglob(f"*.{kind}"))


def module_of(path: Path) -> str:
    """The dotted name of a file below synfin; a package is its folder's name."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def used_by(path: Path) -> set[str]:
    """Everything that a file imports or cimports, as absolute dotted names."""
    text = path.read_text()
    if path.suffix in (".py", ".pyi"):
        return _python_imports(text, path)
    found = {name for match in _CIMPORT.finditer(text) for name in re.split(r"[, ]+", match[1] or match[2])}
    for match in _IMPORT.finditer(text):
        if match[1]:
            found |= {f"{match[1]}.{name.strip()}" for name in match[2].split(",")}
        else:
            found.add(match[3])
    return found


def _python_imports(text: str, path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                folder = path.parents[node.level - 1].relative_to(PACKAGE.parent)
                base = ".".join((*folder.parts, *filter(None, [node.module])))
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def inside(names: set[str]) -> set[str]:
    """Of absolute names those in synfin, without its name."""
    return {name.removeprefix("synfin").lstrip(".") for name in names if name.split(".")[0] == "synfin"} - {""}


def allowed(name: str, may: set[str]) -> bool:
    """Whether a name is one of the allowed modules or lies in one."""
    return any(name == part or name.startswith(f"{part}.") for part in may)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_uses_only_what_its_layer_may(path):
    part = module_of(path).split(".")[0]
    assert part in MAY_USE, f"{part} stands in no layer: add it here and to ARCHITECTURE.md"
    # Inside a package, `from synfin._core.x import y` names the module x and the object y.
    wrong = {name for name in inside(used_by(path)) if not allowed(name, MAY_USE[part])}
    assert not wrong


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if path.suffix in (".pyx", ".pxd")], ids=lambda path: path.name
)
def test_the_core_knows_only_files_before_it(path):
    me = path.stem
    if path.parent.name != "_core" or me == "__init__":
        pytest.skip("not of the core")
    assert me in CORE_ORDER, f"{me} has no place in the order: add it here and to ARCHITECTURE.md"
    known = {name.split(".")[1] for name in inside(used_by(path)) if name.startswith("_core.")} - {me}
    assert {name for name in known if CORE_ORDER.index(name) > CORE_ORDER.index(me)} == set()
    if me in DECODING:
        assert known <= PACKET | DECODING


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_faces_ask_the_wall_clock(path):
    if module_of(path).split(".")[0] not in TIMELESS or module_of(path) in LIVE:
        pytest.skip("a face, or the live source")
    assert not {name.split(".")[0] for name in used_by(path)} & {"time"}
    assert not re.search(r"\.(now|utcnow|today)\(|clock_gettime|gettimeofday", path.read_text())


def test_nothing_but_the_core_and_the_sources_is_compiled():
    compiled = {path.relative_to(PACKAGE).parts[0] for path in SOURCES if path.suffix == ".pyx"}
    assert compiled == {"_core", "sources"}


def test_pyarrow_is_known_to_outputs_and_faces_only():
    users = {
        module_of(path).split(".")[0] for path in SOURCES if any(n.split(".")[0] == "pyarrow" for n in used_by(path))
    }
    assert users <= {"output", "explain", "api", "cli", "stores", "top"}


def test_the_order_in_the_document_is_this_one():
    text = (PACKAGE.parents[1] / "ARCHITECTURE.md").read_text()
    named = re.search(r"in this order:\n\n`(.+?)`\n", text, re.DOTALL)
    assert named and [word for word in named[1].split() if word != "·"] == CORE_ORDER
