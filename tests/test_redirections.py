"""Where a server may send us, and what goes along: never the token to another one, never anywhere that only this machine can reach."""

from __future__ import annotations

import pytest

from harness.sources.addresses import Address, is_same_server, why_not_to
from harness.sources.references import parse_reference
from harness.sources.remote import RemoteError, redirect

from .hub.fixtures import TOKEN, hub  # noqa: F401
from .hub.server import Fault
from .test_hub import MODEL, NAME, REFERENCE, REPO

HUB = "https://hub.example.org/owner/repo/resolve/main/m.gguf"


@pytest.mark.parametrize(
    ("asked", "target", "same"),
    [
        (HUB, "https://hub.example.org/elsewhere", True),
        (HUB, "https://HUB.example.org:443/elsewhere", True),
        (HUB.replace("https", "http"), HUB, True),
        (HUB, HUB.replace("https", "http"), False),
        (HUB, "https://hub.example.org:8443/m.gguf", False),
        ("http://hub.example.org:8080/x", "https://hub.example.org/x", False),
        ("http://hub.example.org/x", "https://hub.example.org:8443/x", False),
        (HUB, "https://cdn.hub.example.org/m.gguf", False),
        (HUB, "https://example.org/m.gguf", False),
        (HUB, "https://hub.example.org.evil.net/m.gguf", False),
        (HUB, "https://hub.example.org@evil.net/m.gguf", False),
        (HUB, "https://evil.net/?https://hub.example.org", False),
        (HUB, "https://hub.example.org./m.gguf", False),
        (HUB, "https://xn--hub-example-org/m.gguf", False),
    ],
)
def test_the_token_goes_to_the_server_that_was_asked_alone(asked, target, same):
    assert is_same_server(asked, target) is same
    if why_not_to(asked, target) is None:
        kept = redirect(Address(asked, "m", {"Authorization": "Bearer x", "other": "y"}), target).headers
        assert kept == ({"Authorization": "Bearer x", "other": "y"} if same else {"other": "y"})


@pytest.mark.parametrize(
    "target",
    [
        "http://hub.example.org/m.gguf", "file:///etc/passwd", "ftp://hub.example.org/m.gguf", "javascript:alert(1)", "data:text/html,x",
        "https://", "https:///m.gguf", "http://[::1", "https://[x]/", "https://h:99999/", "https://a..b/", f"https://{'x' * 64}.org/",
        "https://169.254.169.254/latest/meta-data", "https://[fe80::1]/", "https://127.0.0.1/", "https://localhost:11434/api/tags",
        "https://LOCALHOST./", "https://x.localhost/", "https://[::1]/", "https://[::]/", "https://0.0.0.0/", "https://0/",
        "https://2130706433/", "https://0x7f.1/", "https://127.1/", "https://017700000001/", "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:169.254.169.254]/", "https://[fe80::1%25eth0]/",
    ],
)  # fmt: skip
def test_what_is_not_followed(target):
    assert why_not_to(HUB, target)
    with pytest.raises(RemoteError, match=r"The server of m redirects (to|from) .*, which is not followed; check"):
        redirect(Address(HUB, "m", {}), target)


@pytest.mark.parametrize(
    "target", ["https://cdn.example.net/x?Signature=1", "https://10.0.0.7/x", "https://[2001:db8::1]/x"]
)
def test_what_is_followed(target):
    assert why_not_to(HUB, target) is None


def test_on_this_machine_a_hub_of_this_machine_may_redirect():
    assert why_not_to("http://127.0.0.1:8080/x", "http://localhost:9090/y") is None


def list_all(text):
    return parse_reference(text).list_variants()


@pytest.mark.parametrize(
    ("where", "text", "act"),
    [
        ("/resolve/", REFERENCE, lambda text: parse_reference(text).header()),
        ("/resolve/", REFERENCE, lambda text: parse_reference(text).pull()),
        ("/api/", f"hf:{REPO}:q4_0", list_all),
    ],
)
def test_another_name_of_the_hub_does_not_see_the_token(hub, monkeypatch, where, text, act):  # noqa: F811
    """The hub itself answers under the other name too, and would take the token."""
    hub.add(REPO, NAME, MODEL)
    hub.gated.add(REPO)
    hub.tokens[REPO] = TOKEN
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    target = f"{hub.url.replace('127.0.0.1', 'localhost')}/plain/{REPO}/{NAME}"
    hub.faults.append(Fault(where, method="GET", status=302, headers={"Location": target}))
    try:
        act(text)
    except RemoteError:
        assert where == "/api/"  # where a file is sent for a listing
    seen = {asked.authorization for asked in hub.asked if "/plain/" in asked.path}
    assert seen == {None}
    assert f"Bearer {TOKEN}" in {asked.authorization for asked in hub.asked}


def test_an_expired_address_is_asked_for_anew(hub):  # noqa: F811
    """The header's second range is refused where the first was redirected to: a signature lives for minutes."""
    from harness.sources import headers

    hub.add(REPO, NAME, MODEL)
    source = parse_reference(REFERENCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(headers, "_FIRST_CHUNK_BYTES", 40)
        hub.faults += [Fault("/store/", times=1), Fault("/store/", times=1, status=403)]
        found = source.header()
    assert found.header.architecture == "llama"
    assert [asked.status for asked in hub.asked][:5] == [302, 206, 403, 302, 206]


def test_a_redirection_whose_body_has_no_end_is_followed_without_reading_it(hub):  # noqa: F811
    from .hub import faults

    hub.add(REPO, NAME, MODEL)
    to_store = f"{hub.store_url}/store/{REPO}/{NAME}?X-Amz-Signature=1"
    hub.faults.append(Fault("/resolve/", method="GET", act=faults.redirects(to_store, endless=True)))
    assert parse_reference(REFERENCE).pull()[0].read_bytes() == MODEL
