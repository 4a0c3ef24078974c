"""Prebuilt wheels are known by their tag and by where their library was compiled."""

import pytest

from harness.native.wheels import is_prebuilt, read_wheel_tag

LOCAL = b"\0/tmp/pip-req-build-x/vendor/llama.cpp/ggml/src/ggml.c\0"


def make_package(folder, tag="py3-none-linux_x86_64", content=LOCAL, library="libggml-base.so"):
    package = folder / "llama_cpp"
    (package / "lib").mkdir(parents=True)
    (package / "lib" / library).write_bytes(content)
    metadata = folder / "llama_cpp_python-0.3.36.dist-info"
    metadata.mkdir()
    (metadata / "WHEEL").write_text(
        f"Wheel-Version: 1.0\nGenerator: scikit-build-core 1.1.2\nTag: {tag}\n", encoding="utf-8"
    )
    return package


@pytest.mark.parametrize(
    ("tag", "library", "content", "expected"),
    [
        ("py3-none-linux_x86_64", "libggml-base.so", LOCAL, False),
        ("py3-none-linux_x86_64", "libggml-base.so", b"", False),
        ("py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64", "libggml-base.so", LOCAL, True),
        ("py3-none-musllinux_1_2_aarch64", "libggml-base.so", LOCAL, True),
        (
            "py3-none-linux_x86_64", "libggml-base.so",
            b"\0/home/runner/work/llama-cpp-python/llama-cpp-python/vendor/llama.cpp/ggml/src/ggml.c\0", True,
        ),
        ("py3-none-linux_x86_64", "libggml-base.so", b"\0/__w/llama-cpp-python/llama-cpp-python/vendor/llama.cpp/x\0", True),
        ("py3-none-linux_x86_64", "libggml-base.so", b"\0/project/vendor/llama.cpp/ggml/src/ggml.c\0", True),
        (
            "py3-none-macosx_11_0_arm64", "libggml-base.dylib",
            b"\0/Users/runner/work/llama-cpp-python/llama-cpp-python/vendor/llama.cpp/ggml/src/ggml.c\0", True,
        ),
        (
            "py3-none-win_amd64", "ggml-base.dll",
            b"\0D:\\a\\llama-cpp-python\\llama-cpp-python\\vendor\\llama.cpp\\ggml\\src\\ggml.c\0", True,
        ),
        ("py3-none-win_amd64", "ggml-base.dll", b"\0C:\\Users\\me\\llama-cpp-python\\vendor\\llama.cpp\\x\0", False),
    ],
)  # fmt: skip
def test_who_compiled_a_wheel(tmp_path, tag, library, content, expected):
    package = make_package(tmp_path, tag, content, library)
    assert read_wheel_tag(package) == tag
    assert is_prebuilt(tag, package / "lib") is expected


def test_what_cannot_be_told_is_no_error(tmp_path):
    package = tmp_path / "llama_cpp"
    assert read_wheel_tag(package) == ""
    assert is_prebuilt("", package / "lib") is False
    package = make_package(tmp_path / "two")
    other = tmp_path / "two" / "llama_cpp_python-0.3.1.dist-info"
    other.mkdir()
    (other / "WHEEL").write_bytes(b"\xff\xfe")
    assert read_wheel_tag(package) == ""  # which of the two was installed cannot be told
    (tmp_path / "two" / "llama_cpp_python-0.3.36.dist-info" / "WHEEL").unlink()
    assert read_wheel_tag(package) == ""
