"""The extension modules and their compiler settings; everything else about the package stands in pyproject.toml."""

import os
import runpy
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

ROOT = Path(__file__).parent
CHECKS = os.environ.get("SYNFIN_DEBUG") == "1"  # `make test-debug`: Cython's checks
SANITIZED = os.environ.get("SYNFIN_ASAN") == "1"  # `make test-asan`: gcc's
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"] if SANITIZED else []

# The limited API of the oldest supported Python: one wheel serves all later ones.
LIMITED_API = [("Py_LIMITED_API", "0x030b0000"), ("CYTHON_LIMITED_API", "1")]
COMPILER = ["-O3", "-fno-strict-aliasing", "-Wno-unused-function", "-Wno-unreachable-code", "-g0"]
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": CHECKS,
    "initializedcheck": CHECKS,
    "wraparound": False,
    "cdivision": True,
    "embedsignature": True,
}


def declare() -> None:
    """Write the numbers of columns, enumerations, states and events from their one declaration (schema.py, states.py)."""
    lines = runpy.run_path(str(ROOT / "tools" / "declare.py"))["render"](ROOT / "src")
    target = ROOT / "src/synfin/_core/declared.pxd"
    if not target.exists() or target.read_text() != lines:
        target.write_text(lines)


def extensions() -> list[Extension]:
    os.chdir(ROOT)
    compiler = [*COMPILER, *(["-g1", "-fno-omit-frame-pointer"] if SANITIZED else []), *SANITIZERS]
    return [
        Extension(
            ".".join(path.with_suffix("").parts[1:]),
            [str(path)],
            include_dirs=["src/synfin/_core"],
            define_macros=LIMITED_API,
            extra_compile_args=compiler,
            extra_link_args=SANITIZERS,
            py_limited_api=True,
        )
        for path in sorted(Path("src").rglob("*.pyx"))
    ]


def outdated() -> bool:
    """True when a C file was made by an older setup.py: Cython compares it with its sources, not with the directives."""
    made = [path.with_suffix(".c") for path in ROOT.joinpath("src").rglob("*.pyx")]
    return any(path.exists() and path.stat().st_mtime < Path(__file__).stat().st_mtime for path in made)


declare()
setup(
    ext_modules=cythonize(extensions(), compiler_directives=DIRECTIVES, include_path=["src"], force=outdated()),
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
