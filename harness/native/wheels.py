"""Where the llama.cpp that is loaded was compiled: here, or on a build service's machine for many others.

A prebuilt wheel leaves out what not every CPU has, and CMake's flags are not kept in it. What it tells is the platform that its
metadata name, and the folders that ggml's assertions have in them, of which nothing is recorded: a compiler's folder may be somebody's.
"""

from __future__ import annotations

import mmap
import pathlib

#: Platforms of wheels that auditwheel made fit for many systems, which pip never asks of a compiler on its own machine (PEP 600, 656).
_PORTABLE = ("manylinux", "musllinux")

#: Folders in which the project's own workflows compile: GitHub's runners check out to …/NAME/NAME, cibuildwheel's containers copy to
#: /project. Source: llama-cpp-python's build-and-release.yaml, build-wheels-cuda.yaml, -metal, -rocm, -vulkan.
_SERVICE_FOLDERS = (
    b"/llama-cpp-python/llama-cpp-python/vendor/",
    b"\\llama-cpp-python\\llama-cpp-python\\vendor\\",
    b"/project/vendor/llama.cpp/",
)


def read_wheel_tag(package: pathlib.Path) -> str:
    """The tag of the wheel that a package's folder was installed from; empty where there is none, or more than one."""
    found = list(package.parent.glob(f"{package.name}_python-*.dist-info/WHEEL"))
    try:
        text = found[0].read_text(encoding="utf-8") if len(found) == 1 else ""
    except (OSError, ValueError):
        return ""
    return next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("Tag:")), "")


def is_prebuilt(wheel_tag: str, libraries: pathlib.Path) -> bool:
    """Whether a wheel was compiled by a build service, by its tag and by the libraries in a folder."""
    if any(name in wheel_tag for name in _PORTABLE):
        return True
    files = [path for path in sorted(libraries.glob("*ggml-base*")) if not path.is_symlink()]
    return bool(files) and _holds(files[0], _SERVICE_FOLDERS)


def _holds(path: pathlib.Path, texts: tuple[bytes, ...]) -> bool:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return any(content.find(text) >= 0 for text in texts)
    except (OSError, ValueError):  # an empty file cannot be mapped
        return False
