"""What the environment and the user's files may hold that huggingface_hub, its client or a token cannot be made of."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from harness.errors import HarnessError, Outcome
from harness.sources import hub_client
from harness.sources.references import parse_reference
from harness.sources.remote_errors import SettingsError

from .hub.fixtures import environment, hub  # noqa: F401
from .test_hub import REFERENCE, ROOT

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture
def bare(hub, monkeypatch):  # noqa: F811
    """A hub, and none of the variables that a client reads."""
    for name in os.environ:
        if name.upper() in PROXIES or name.startswith(("SSL_CERT", "HF_OIDC")):
            monkeypatch.delenv(name)
    return hub


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HTTPS_PROXY", "foo://bar:1", "HTTPS_PROXY holds an address that is none of a proxy's"),
        ("HTTP_PROXY", "http://me:pass-word@[::1", "HTTP_PROXY holds an address that is none of a proxy's"),
        ("all_proxy", "http://host:port", "all_proxy holds an address that is none of a proxy's"),
        ("ALL_PROXY", "socks5h://127.0.0.1:9", r"ALL_PROXY asks for a SOCKS proxy.*socksio"),
        ("SSL_CERT_FILE", "/nowhere/at/all.pem", r"certificates cannot be read \(.*SSL_CERT_FILE"),
        ("SSL_CERT_FILE", __file__, r"certificates cannot be read \(.*SSL_CERT_FILE"),
    ],
)
def test_what_a_client_cannot_be_made_of_is_said(bare, monkeypatch, name, value, said):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=said) as caught:
        parse_reference(REFERENCE).header()
    assert "pass-word" not in str(caught.value)
    assert caught.value.outcome is Outcome.QUESTION
    assert bare.asked == []


def test_a_catalog_model_is_computed_all_the_same(bare, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "foo://bar:1")
    found = parse_reference("llama3.2:1b:q4_0").header()
    assert found.is_computed
    assert "HTTPS_PROXY holds" in found.note


def test_a_proxy_that_nobody_serves_is_one_sentence(bare, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://me:pass-word@127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://hub.example.org")
    with pytest.raises(HarnessError, match=r"cannot be reached.*proxies") as caught:
        parse_reference(REFERENCE).header()
    assert "pass-word" not in str(caught.value)


def test_a_proxy_that_refuses_is_named(bare, monkeypatch):
    """The hub's own port as a proxy: it knows no CONNECT."""
    monkeypatch.setenv("HTTPS_PROXY", bare.url)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "https://hub.example.org")
    with pytest.raises(HarnessError, match=r"The proxy on the way to .* refuses \(501"):
        parse_reference(REFERENCE).header()


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("foo", "HF_ENDPOINT is 'foo', which is no address"),
        ("ftp://hub.example.org", "which is no address"),
        ("https://", "which is no address"),
        ("http://me:pass-word@a..b", r"HF_ENDPOINT is 'http://a\.\.b', which is no address"),
        (f"http://{'x' * 64}.org", "which is no address"),
        ("http://h:99999", "which is no address"),
    ],
)
def test_an_endpoint_that_is_no_address_is_said(bare, monkeypatch, endpoint, said):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    for text in (REFERENCE, REFERENCE.rpartition("/")[0]):
        with pytest.raises(SettingsError, match=said) as caught:
            parse_reference(text).header()
        assert "pass-word" not in str(caught.value)


@pytest.mark.parametrize("reason", ["Name or service not known", "Network is unreachable", "No route to host"])
def test_names_that_are_not_found_and_networks_that_are_not_there_are_one_sentence(bare, monkeypatch, reason):
    """Also an address of a version of IP that is not spoken here: what the operating system says is passed on."""

    def fail(*arguments, **options):
        raise OSError(-2, reason)

    monkeypatch.setattr("socket.create_connection", fail)
    monkeypatch.setattr("socket.getaddrinfo", fail)
    for endpoint in ("http://hub.example.org", "http://[2001:db8::1]"):
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        with pytest.raises(HarnessError, match=rf"cannot be reached \(.*{reason}\); check the network"):
            parse_reference(REFERENCE).header()


@pytest.mark.parametrize(
    "token",
    [
        "hf_se\x01cret",
        "hf_se\ncret: x",
        "hf_sécret",
        "hf_se cret",
        "hf_se\x1b[2Jcret",
        "hf_\udcffsecret",
        "hf_se\r\nX-Evil: cret",
    ],
)
def test_what_is_no_token_is_not_sent_and_not_repeated(bare, monkeypatch, token):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: token)
    monkeypatch.setenv("HF_TOKEN", "set")
    for act in (parse_reference(REFERENCE).header, parse_reference(REFERENCE).pull):
        with pytest.raises(SettingsError, match="What HF_TOKEN holds is no token") as caught:
            act()
        assert "cret" not in str(caught.value)
    assert bare.asked == []


def test_a_token_is_taken_from_its_variable_and_then_from_its_file(bare, monkeypatch, tmp_path):
    path = tmp_path / "token"
    path.write_text(" hf_of_the_file \n")
    assert hub_client.token_headers() == {}
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(path))
    monkeypatch.setattr("huggingface_hub.constants.HF_STORED_TOKENS_PATH", str(tmp_path / "stored"))
    assert hub_client.token_headers() == {"authorization": "Bearer hf_of_the_file"}
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_variable\n")
    assert hub_client.token_headers() == {"authorization": "Bearer hf_of_the_variable"}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    assert hub_client.token_headers() == {}


@pytest.mark.parametrize("kind", ["a folder", "no text", "below a file"])
def test_a_token_that_cannot_be_read_is_said(bare, monkeypatch, tmp_path, kind):
    path = tmp_path / "token"
    if kind == "a folder":
        path.mkdir()
    else:
        path.write_bytes(b"\xff\xfe\x00")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(path / "x" if kind == "below a file" else path))
    if kind == "below a file" and os.name == "nt":
        return  # Windows says of it that it is not there
    with pytest.raises(SettingsError, match=r"The token cannot be read \(.*run `hf auth login`"):
        hub_client.token_headers()


def test_a_token_that_is_not_renewed_is_not_waited_for(bare, monkeypatch):
    import threading

    never = threading.Event()
    monkeypatch.setattr(hub_client, "TOKEN_LIMIT_S", 0.1)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: never.wait(10))
    with pytest.raises(SettingsError, match="did not renew the token"):
        hub_client.token_headers()
    never.set()


def test_a_login_by_openid_that_fails_is_said(bare, monkeypatch):
    monkeypatch.setenv("HF_OIDC_RESOURCE", "x")
    with pytest.raises(SettingsError, match=r"finds no token.*HF_OIDC_RESOURCE"):
        hub_client.token_headers()


def test_a_stored_token_that_is_damaged_is_not_printed(bare, monkeypatch, tmp_path, capfd):
    """huggingface_hub logs the line of its file that it cannot read."""
    stored = tmp_path / "stored"
    stored.write_text("hf_token = hf_mark\n")
    (tmp_path / "token").write_text("hf_other")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_STORED_TOKENS_PATH", str(stored))
    assert hub_client.token_headers() == {"authorization": "Bearer hf_other"}
    out, err = capfd.readouterr()
    assert "hf_mark" not in out + err


def test_a_variable_of_huggingface_hub_that_is_no_number_is_said(hub, tmp_path):  # noqa: F811
    command = [sys.executable, "-m", "harness", "inspect", REFERENCE]
    variables = environment(hub, tmp_path, HF_HUB_ETAG_TIMEOUT="soon", HF_TOKEN="hf_mark")
    done = subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "cannot read its settings" in done.stderr
    assert "HF_HUB_ETAG_TIMEOUT" in done.stderr
    assert "hf_mark" not in done.stderr


def test_a_worker_has_no_token(monkeypatch):
    from harness.runs.worker import _environment

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_ID_TOKEN"):
        monkeypatch.setenv(name, "hf_mark")
    assert "hf_mark" not in _environment().values()


CLOSED = """
import os, sys
from click.testing import CliRunner
from harness.cli import cli
from harness.errors import HarnessError

for words in (["models"], ["models", "--local"], ["models", "--prune"], ["inspect", "http://127.0.0.1:8/x.gguf"],
              ["pull", "http://127.0.0.1:8/x.gguf"], ["pull", "hf:o/r:Q4_0"], ["inspect", "llama3.2:1b:q8_0"], ["inspect", "ollama:x"]):
    done = CliRunner().invoke(cli, words)
    if done.exception is not None and not isinstance(done.exception, (HarnessError, SystemExit)):
        print(words, repr(done.exception))
print("done")
"""


def give_up_rights():
    """Of root's capabilities those by which it reads what it may not (Linux: CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH), from the exec on."""
    if sys.platform == "linux" and os.geteuid() == 0:
        libc = ctypes.CDLL(None)
        for capability in (1, 2):
            libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


@pytest.mark.skipif(os.name == "nt", reason="needs rights of folders as POSIX has them")
def test_folders_that_may_not_be_looked_into_are_taken_for_empty(hub, tmp_path):  # noqa: F811
    """All that harness looks through, closed by its mode, which binds root too once it has given up its right to look anyway."""
    closed = tmp_path / "closed"
    closed.mkdir()
    inside = {
        name: str(closed / name)
        for name in ("HOME", "XDG_CONFIG_HOME", "HARNESS_CACHE_DIR", "LLAMA_CACHE", "OLLAMA_MODELS", "HF_HUB_CACHE")
    }
    variables = {
        **environment(hub, tmp_path),
        **inside,
        "HF_HOME": str(tmp_path / "hf"),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }

    def child(code):
        return subprocess.run(
            [sys.executable, "-c", code],
            env=variables, cwd="/", capture_output=True, text=True, timeout=60, preexec_fn=give_up_rights,
        )  # fmt: skip

    closed.chmod(0)
    try:
        if child(f"import os; os.listdir({str(closed)!r})").returncode == 0:
            pytest.skip("needs a user whom rights of folders bind, or to be able to become one")
        done = child(CLOSED)
    finally:
        closed.chmod(0o700)
    assert done.stdout == "done\n", done.stdout + done.stderr
