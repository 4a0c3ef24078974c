"""What only POSIX, only Linux or only Windows has is asked for before it is used: by the text of every module, and with another platform in
its place."""

import ast
import json
import os
import pathlib
import subprocess
import sys
import types

import psutil
import pytest

from harness.host import scheduling, system
from harness.records import journal
from harness.records.failures import Cause
from harness.runs import worker
from harness.sources import cache_folder, config_folder

PACKAGE = pathlib.Path(__file__).parent.parent / "harness"
MODULES = sorted(PACKAGE.rglob("*.py"))

#: Modules that one kind of system has. Source: the "Availability" notes of Python's library reference.
ONE_SYSTEM_MODULES = {
    "crypt", "curses", "fcntl", "grp", "nis", "ossaudiodev", "posix", "pty", "pwd", "readline", "resource", "spwd", "syslog", "termios",
    "tty", "msvcrt", "nt", "winreg", "winsound", "_winapi",
}  # fmt: skip

#: Names of `os`, `signal`, `time` and `socket` that Windows lacks.
POSIX_NAMES = {
    "os": {
        "chown", "chroot", "confstr", "ctermid", "fchmod", "fchown", "fdatasync", "fork", "forkpty", "getegid", "geteuid", "getgid", "getgroups",
        "getloadavg", "getpgid", "getpgrp", "getpriority", "getresuid", "getsid", "getuid", "initgroups", "killpg", "lchown", "lockf", "mkfifo",
        "mknod", "nice", "openpty", "pathconf", "pipe2", "posix_fadvise", "posix_fallocate", "posix_spawn", "pread", "pwrite", "readv",
        "sched_getaffinity", "sched_setaffinity", "sched_yield", "sendfile", "setegid", "seteuid", "setgid", "setpgid", "setpriority",
        "setsid", "setuid", "statvfs", "sync", "sysconf", "tcgetpgrp", "ttyname", "uname", "wait", "wait3", "wait4", "waitid", "writev",
        "O_CLOEXEC", "O_DIRECT", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "WIFSIGNALED", "WTERMSIG", "WEXITSTATUS", "WNOHANG",
    },
    "signal": {
        "SIGKILL", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCHLD", "SIGPIPE", "SIGSTOP", "SIGCONT", "SIGBUS", "SIGTSTP", "alarm",
        "setitimer", "pause", "pthread_kill", "pthread_sigmask", "sigwait", "siginterrupt",
    },
    "time": {"tzset", "clock_gettime", "pthread_getcpuclockid"},
    "socket": {"AF_UNIX", "SO_REUSEPORT"},
}  # fmt: skip

#: What says that somebody asked first, in the function or the module's condition around it.
_ASKED = (
    "sys.platform",
    "CAN_FREE_THREADS",
    "os.name",
    ".platform",
    "hasattr",
    "AttributeError",
    "ImportError",
    "getattr",
)


def scopes(tree):
    """Every node with the functions and conditions around it, outermost first."""

    def walk(node, around):
        for child in ast.iter_child_nodes(node):
            yield child, around
            inside = isinstance(
                child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.If, ast.Try, ast.IfExp, ast.BoolOp)
            )
            yield from walk(child, [*around, child] if inside else around)

    yield from walk(tree, [])


def is_asked(around):
    return any(word in ast.unparse(scope) for scope in around for word in _ASKED)


def find_unasked(source):
    """Lines that use what one system lacks without asking."""
    found = []
    for node, around in scopes(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {(node.module or "").partition(".")[0]}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names = {node.attr} & POSIX_NAMES.get(node.value.id, set())
            if names and not is_asked(around):
                found.append(f"{node.lineno}: {node.value.id}.{node.attr}")
            continue
        else:
            continue
        if names & ONE_SYSTEM_MODULES and not is_asked(around):
            found.append(f"{node.lineno}: import {', '.join(names)}")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_what_one_system_lacks_is_asked_for_first(path):
    assert find_unasked(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("source", "n_found"),
    [
        ("import fcntl", 1), ("from pwd import getpwuid", 1), ("import os\nos.fork()", 1), ("def f():\n    import resource", 1),
        ("try:\n    import fcntl\nexcept ImportError:\n    fcntl = None", 0),
        ("import sys\nif sys.platform != 'win32':\n    import resource", 0), ("import os\nx = hasattr(os, 'geteuid') and os.geteuid()", 0),
        ("import signal\ndef f():\n    return signal.SIGKILL", 1), ("import os.path, json", 0),
    ],
)  # fmt: skip
def test_the_rule_sees_what_it_is_for(source, n_found):
    assert len(find_unasked(source)) == n_found


_MODES = ("r", "w", "a", "x", "rb", "wb", "ab", "xb", "r+b", "rb+", "w+b", "a+b", "x+b")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_files_of_text_name_their_encoding(path):
    """Without it Windows takes the system's code page, in which no model's name need have a place."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        keywords = {item.arg for item in node.keywords}
        values = [item.value for item in [*node.args, *node.keywords] if isinstance(item, (ast.Constant, ast.keyword))]
        modes = [value for value in (getattr(value, "value", value) for value in values) if value in _MODES]
        is_open = isinstance(node.func, ast.Name) and name == "open" and not any("b" in mode for mode in modes)
        is_text = isinstance(node.func, ast.Attribute) and name in ("read_text", "write_text") and len(node.args) <= 1
        if (is_open or is_text) and "encoding" not in keywords and "os.devnull" not in ast.unparse(node):
            found.append(f"{node.lineno}: {ast.unparse(node)[:60]}")
    assert found == []


# ---- another platform in this one's place ----------------------------------------------------------------------------

#: Run in a child: what the platform lacks is taken away, and commands are run one after the other. Other people's packages, which ask
#: for the platform while they are imported, are there before.
_AS_ELSEWHERE = """
import io, json, sys, os, signal
import subprocess, asyncio, tempfile, ctypes, webbrowser, getpass, multiprocessing, shutil, locale, platform, urllib.request
import click, click.shell_completion, filelock, gguf, jinja2, matplotlib.pyplot, numpy, psutil, scipy.stats, tabulate, tqdm, wcwidth
from huggingface_hub import constants, get_token, hf_hub_url
asked = json.loads(sys.argv[1])
for module in asked["modules"]:
    sys.modules[module] = None
for owner in ("os", "signal"):
    for name in asked[owner]:
        if hasattr(sys.modules[owner], name):
            delattr(sys.modules[owner], name)
from tests import machines
from harness.host import system
system._system = machines.Identity(asked["identity"])
sys.platform = asked["platform"]
from harness.__main__ import main
told = sys.__stdout__
for arguments in asked["commands"]:
    streams = [io.BytesIO(), io.BytesIO()]
    sys.stdout, sys.stderr = (io.TextIOWrapper(stream, asked["encoding"], write_through=True) for stream in streams)
    sys.argv = ["harness", *arguments]
    try:
        code = main()
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        code = f"{type(error).__name__}: {error}"
    shown, said = (stream.getvalue().decode(asked["encoding"]) for stream in streams)
    print(json.dumps([code or 0, shown, said]), file=told, flush=True)
os._exit(0)
"""

_WINDOWS = {
    "platform": "win32", "identity": "windows-desktop", "encoding": "cp1252",
    "modules": ["fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "posix", "syslog"],
    # But what Python's own library needs to start a process on the system that really is here.
    "os": sorted(POSIX_NAMES["os"] - {"wait", "waitid", "uname", "sysconf", "WNOHANG", "WIFSIGNALED", "WTERMSIG", "WEXITSTATUS"}),
    "signal": ["SIGKILL", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGALRM", "SIGPIPE", "SIGBUS", "setitimer", "alarm"],
}  # fmt: skip
_MACOS = {"platform": "darwin", "identity": "m2-max", "encoding": "utf-8", "modules": [], "os": [], "signal": []}

#: Commands that need no engine.
COMMANDS = [
    ["--help"], ["pp-tg", "--help"], ["models"], ["models", "--local"], ["predict", "-m", "llama3.2:1b", "--machine", "M2"],
    ["inspect", "synth:llama3.2:1b:q4_0"], ["list"], ["report", "-o", "report.html"], ["man"], ["tune", "--help"], ["compare", "no.jsonl"],
]  # fmt: skip

ANSWERS = {"report -o report.html": 2, "compare no.jsonl": 2}  # there is nothing to report of, and no such file


@pytest.fixture(scope="module", params=[_WINDOWS, _MACOS], ids=lambda system: system["platform"])
def answers(request, tmp_path_factory):
    """What each command gave on another platform: exit code, stdout, stderr."""
    folder = tmp_path_factory.mktemp("elsewhere")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "HF_"))},
        "HOME": str(folder), "LOCALAPPDATA": str(folder / "Local"), "APPDATA": str(folder / "Roaming"), "COLUMNS": "80",
        "PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]),
    }  # fmt: skip
    asked = json.dumps({**request.param, "commands": COMMANDS})
    done = subprocess.run(
        [sys.executable, "-c", _AS_ELSEWHERE, asked],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
        timeout=250,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(COMMANDS), done.stderr[-2000:]
    return dict(zip(map(" ".join, COMMANDS), lines, strict=True))


@pytest.mark.parametrize("command", [" ".join(words) for words in COMMANDS])
def test_commands_run_with_what_another_platform_has(answers, command):
    """On Windows with a console of code page 1252, which has no ·, ± beyond Latin-1, lines or arrows."""
    code, shown, said = answers[command]
    assert "Traceback" not in said
    assert "please report it" not in said
    assert code == ANSWERS.get(command, 0), said
    assert said if code else shown or command == "list"


@pytest.mark.parametrize(
    ("platform", "variables", "cache", "config"),
    [
        ("linux", {}, "home/.cache/harness/synth", "home/.config/harness"),
        ("linux", {"XDG_CACHE_HOME": "c", "XDG_CONFIG_HOME": "o"}, "c/harness/synth", "o/harness"),
        ("darwin", {}, "home/Library/Caches/harness/synth", "home/.config/harness"),
        ("win32", {}, "home/AppData/Local/harness/synth", "home/AppData/Roaming/harness"),
        ("win32", {"LOCALAPPDATA": "local", "APPDATA": "roaming"}, "local/harness/synth", "roaming/harness"),
        ("win32", {"HARNESS_CACHE_DIR": "mine"}, "mine/synth", "home/AppData/Roaming/harness"),
    ],
)
def test_each_system_has_its_folders(monkeypatch, platform, variables, cache, config):
    for name in ("HARNESS_CACHE_DIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "LOCALAPPDATA", "APPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**variables, "HOME": "home", "USERPROFILE": "home"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert cache_folder.cache_folder("synth") == pathlib.Path(cache)
    assert config_folder.config_folder() == pathlib.Path(config)


def test_windows_tells_cpu_time_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setattr(sys, "platform", "win32")
    counts = system.OperatingSystem().own_counts()
    assert counts.cpu_s > 0
    assert (counts.n_major_faults, counts.n_switched) == (None, None)


@pytest.mark.parametrize("level", [-1, 1, 2, 3])
def test_windows_has_classes_of_priority(monkeypatch, level):
    asked = []
    classes = {name: name for name in scheduling._CLASSES.values()}
    stand_in = types.SimpleNamespace(
        **classes, AccessDenied=psutil.AccessDenied, Process=lambda: types.SimpleNamespace(nice=asked.append)
    )
    monkeypatch.setattr(scheduling, "psutil", stand_in)
    monkeypatch.setattr(sys, "platform", "win32")
    assert scheduling.set_priority(level) is None
    assert asked == [scheduling._CLASSES[level]]
    assert asked[0].endswith("_PRIORITY_CLASS")


def test_a_journal_is_kept_where_there_are_no_locks(monkeypatch, tmp_path):
    monkeypatch.setattr(journal, "fcntl", None)
    with (tmp_path / "a.jsonl").open("ab") as file:
        assert journal._lock(file)


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (0xC0000005, Cause.SEGFAULT), (0xC000001D, Cause.ILLEGAL), (0xC0000409, Cause.ABORT), (0xC0000017, Cause.OUT_OF_MEMORY),
        (3, Cause.ABORT), (1, Cause.EXIT),
    ],
)  # fmt: skip
def test_windows_says_by_the_exit_code_what_a_worker_died_of(code, cause):
    """Source: ntstatus.h; abort() of Microsoft's C library ends with 3."""
    assert worker._WINDOWS_CAUSES.get(code, Cause.EXIT) is cause
