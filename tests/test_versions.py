"""Whether a llama-cpp-python is one that harness can use: known layouts and signatures, and refusals in one sentence."""

import ast
import ctypes
import pathlib
import re
import sys
import types

import pytest

from harness.errors import NativeError
from harness.native import versions

NATIVE = pathlib.Path(versions.__file__).parent

#: A ctypes type for each letter of a signature.
TYPES = {
    "v": None, "p": ctypes.c_void_p, "i": ctypes.c_int32, "f": ctypes.c_float, "b": ctypes.c_bool, "z": ctypes.c_uint64,
}  # fmt: skip


def make_function(signature):
    result, *arguments = (TYPES.get(kind, versions.make_struct("p:a")) for kind in signature)
    return types.SimpleNamespace(restype=result, argtypes=list(arguments))


def default_bytes(name, struct, **changes):
    """What a library returns by default, in a struct's layout."""
    value = struct()
    for field, default in {**versions.DEFAULTS.get(name, {}), **changes}.items():
        if hasattr(struct, field):
            setattr(value, field, type(getattr(value, field))(default))
    return bytes(value)


@pytest.fixture
def binding(monkeypatch):
    """A binding of the newest layouts, whose library returns the known defaults."""
    made = types.SimpleNamespace(__version__="9.9.9", **dict.fromkeys(versions.OTHER_NAMES.split()[1:], 0))
    for name, layouts in versions.LAYOUTS.items():
        setattr(made, name, versions.make_struct(layouts[0]))
    for signature, names in versions.SIGNATURES.items():
        for name in names.split():
            setattr(made, name, make_function(signature))

    def read(function, struct):
        name = next(name for name in versions.DEFAULTS if getattr(made, name) is struct)
        return default_bytes(name, struct), ctypes.sizeof(struct)

    monkeypatch.setattr(versions, "read_defaults", read)
    monkeypatch.delenv("LLAMA_CPP_LIB_PATH", raising=False)
    return made


def test_a_known_binding_will_do(binding):
    versions.check_binding(binding)


@pytest.mark.parametrize(
    ("name", "layout"), [(name, layout) for name, layouts in versions.LAYOUTS.items() for layout in layouts]
)
def test_every_layout_that_was_tried_will_do(binding, name, layout):
    setattr(binding, name, versions.make_struct(layout))
    assert versions.find_trouble(binding) is None


def spoil(layout):
    """Layouts that differ from one in one thing each: a field less, one more, two in another order, one of another type."""
    fields = layout.split()
    yield " ".join(fields[:-1])
    yield f"{layout} i:another"
    yield f"i:another {layout}"
    yield " ".join((fields[1], fields[0], *fields[2:]))
    for at, field in enumerate(fields):
        if field.startswith(("u:", "f:")):
            other = "f" if field.startswith("u") else "u"
            yield " ".join((*fields[:at], f"{other}:{field[2:]}", *fields[at + 1 :]))


@pytest.mark.parametrize(
    ("name", "layout"),
    [(name, spoilt) for name, layouts in versions.LAYOUTS.items() for layout in layouts for spoilt in spoil(layout)],
)
def test_another_layout_is_refused_with_what_was_found_and_tried(binding, name, layout):
    setattr(binding, name, versions.make_struct(layout))
    with pytest.raises(NativeError) as refusal:
        versions.check_binding(binding)
    assert str(refusal.value) == (
        f"llama-cpp-python 9.9.9 has another {name} than harness knows; harness was tried with {versions.TRIED[0]} to "
        f"{versions.TRIED[-1]}: pip install llama-cpp-python=={versions.TRIED[-1]}."
    )


@pytest.mark.parametrize("name", [*versions.LAYOUTS, *" ".join(versions.SIGNATURES.values()).split()])
def test_what_is_not_there_is_named(binding, name):
    delattr(binding, name)
    with pytest.raises(NativeError, match=rf"^llama-cpp-python 9\.9\.9 has no {name}; harness was tried with"):
        versions.check_binding(binding)


@pytest.mark.parametrize(
    ("name", "other"),
    [("llama_decode", "ipsi"), ("llama_model_size", "ip"), ("llama_memory_clear", "vp"), ("llama_n_ctx", "zp")],
)
def test_a_function_that_takes_or_gives_something_else_is_refused(binding, name, other):
    setattr(binding, name, make_function(other))
    with pytest.raises(NativeError, match=f"has another {name} than harness knows"):
        versions.check_binding(binding)


@pytest.mark.parametrize(
    ("name", "field"),
    [(name, field.split(":")[1]) for name in versions.DEFAULTS for field in versions.LAYOUTS[name][0].split()],
)
def test_a_library_whose_defaults_lie_elsewhere_is_refused(binding, monkeypatch, name, field):
    """As a shifted struct looks: any field reads as something else."""
    struct = getattr(binding, name)
    offset = getattr(struct, field).offset

    def read(function, asked):
        data = bytearray(default_bytes("" if asked is not struct else name, asked))
        if asked is struct:
            data[offset] ^= 1
        else:
            data[:] = default_bytes(next(other for other in versions.DEFAULTS if other != name), asked)
        return bytes(data), ctypes.sizeof(asked)

    monkeypatch.setattr(versions, "read_defaults", read)
    with pytest.raises(
        NativeError, match=f"does not fit the llama.cpp that it loads .the default of {field} in {name} "
    ):
        versions.check_binding(binding)


@pytest.mark.parametrize("more", [-8, 8])
def test_a_library_whose_struct_has_another_size_is_refused(binding, monkeypatch, more):
    read = versions.read_defaults
    monkeypatch.setattr(
        versions, "read_defaults", lambda function, struct: (read(function, struct)[0], ctypes.sizeof(struct) + more)
    )
    with pytest.raises(NativeError, match="a field behind the last"):
        versions.check_binding(binding)


def test_where_sizes_cannot_be_told_defaults_alone_decide(binding, monkeypatch):
    read = versions.read_defaults
    monkeypatch.setattr(versions, "read_defaults", lambda function, struct: (read(function, struct)[0], None))
    versions.check_binding(binding)


def test_a_library_that_the_environment_names_is_what_to_take_away(binding, monkeypatch):
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", "/somewhere")
    del binding.llama_decode
    with pytest.raises(NativeError, match="take LLAMA_CPP_LIB_PATH out of the environment"):
        versions.check_binding(binding)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (AttributeError("/home/me/x/libllama.so: undefined symbol: llama_new"), "load its llama.cpp: libllama.so: undefined symbol: llama_new;"),
        (OSError("libcudart.so.12: cannot open shared object file"), "libcudart.so.12: cannot open shared object file;"),
        (RuntimeError("Failed to load shared library '/home/me/llama_cpp/lib/libllama.so': x"), "library 'libllama.so': x;"),
        (RuntimeError(r"Failed to load shared library 'C:\Users\me\lib\llama.dll': x"), "library 'llama.dll': x;"),
        (ModuleNotFoundError("No module named 'llama_cpp'", name="llama_cpp"), "llama-cpp-python is not installed;"),
        (ModuleNotFoundError("No module named 'diskcache'", name="diskcache"), "needs diskcache, which is not installed;"),
    ],
)  # fmt: skip
def test_a_binding_that_cannot_be_loaded_says_why_in_one_sentence_without_paths(monkeypatch, error, says):
    def fail(name):
        raise error

    monkeypatch.setattr(versions.importlib, "import_module", fail)
    with pytest.raises(NativeError) as refusal:
        versions.import_binding()
    text = str(refusal.value)
    assert says in text
    assert "home" not in text
    assert "Users" not in text
    assert text.endswith(f"=={versions.TRIED[-1]}.")


@pytest.mark.skipif(sys.platform == "win32", reason="takes a function of libc's name")
def test_what_a_function_returns_is_read_with_its_size():
    """div(3) gives two integers, and has no 17 bytes: a function made here stands in for one that returns more."""
    struct = versions.make_struct("p:a i:b p:c")
    if versions.platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("only there is the result's place an argument")
    value = struct(1, 2, 3)

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    def give(address):
        ctypes.memmove(address, ctypes.addressof(value), ctypes.sizeof(struct))

    data, n_written = versions.read_defaults(give, struct)
    assert data[: ctypes.sizeof(struct)] == bytes(value)
    assert n_written == ctypes.sizeof(struct)


@pytest.mark.parametrize(
    ("mode", "flags"),
    [
        ("auto", (True, False, False)), ("none", (False, False, False)), ("mmap", (True, False, False)),
        ("mlock", (False, True, False)), ("mmap+mlock", (True, True, False)), ("dio", (False, False, True)),
    ],
)  # fmt: skip
def test_a_load_mode_is_three_flags_in_older_versions(mode, flags):
    newest, *_, oldest = (versions.make_struct(layout)() for layout in versions.LAYOUTS["llama_model_params"])
    versions.set_load_mode(oldest, mode)
    assert (oldest.use_mmap, oldest.use_mlock, oldest.use_direct_io) == flags
    versions.set_load_mode(newest, mode)
    assert newest.load_mode == ["none", "mmap", "mlock", "mmap+mlock", "dio", "auto"].index(mode) - 6 * (mode == "auto")


@pytest.mark.parametrize("version", [*versions.TRIED, "9.9.9"])
def test_an_older_rpc_is_refused_and_everything_else_left_to_the_greeting(version):
    if version in (versions.TRIED[-1], "9.9.9"):
        versions.check_rpc(version)
        return
    with pytest.raises(
        NativeError, match=f"^llama-cpp-python {version} speaks an older RPC than harness; leave out --rpc"
    ):
        versions.check_rpc(version)


def test_every_name_of_llama_cpp_that_is_used_is_checked():
    """A new call is a new name in the table, so that a version without it is refused before it is called."""
    used = {
        node.attr
        for path in NATIVE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "llama_cpp"
    }
    known = {*" ".join(versions.SIGNATURES.values()).split(), *versions.OTHER_NAMES.split(), *versions.LAYOUTS}
    assert used - known == {"llama_cpp", "__file__"}  # the module inside the package, which holds the library
    assert known - used == set(versions.DEFAULTS)  # structs that llama.cpp itself makes


def test_fields_that_are_set_are_in_every_layout_or_have_an_adapter():
    text = "".join(path.read_text(encoding="utf-8") for path in NATIVE.rglob("*.py") if path.name != "versions.py")
    used = set(re.findall(r"parameters\.(\w+)\b(?=[^()\n]*=)", text))
    common = set.intersection(
        *({item.split(":")[1] for item in layout.split()} for layout in versions.LAYOUTS["llama_model_params"])
    ) | {item.split(":")[1] for item in versions.LAYOUTS["llama_context_params"][-1].split()}
    assert used
    assert used <= common | {"poll", "prio", "strict_cpu", "cpumask"}


def test_the_project_asks_for_the_versions_that_were_tried():
    text = (NATIVE.parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    first, last = versions.TRIED[0], versions.TRIED[-1]
    major, minor, patch = last.split(".")
    assert f'"llama-cpp-python>={first},<{major}.{minor}.{int(patch) + 1}"' in text
