"""huggingface_hub as it is set up here: its settings, its HTTP client, the user's token, and a sentence where one of them is spoilt.

Whoever wants huggingface_hub asks here. Its settings are read from the environment when it is imported, its client reads proxies and
certificates when it is made, and the token may come from a variable, a file or a login's renewal: each of these may hold anything.
"""

from __future__ import annotations

import logging
import os
import re
from typing import Any

from harness.errors import HarnessError
from harness.sources.addresses import hide_secrets, hide_user, split_url
from harness.sources.patience import within
from harness.sources.remote_errors import SettingsError, short_reason

#: A login's token is renewed a day before it ends, by huggingface_hub's own request.
TOKEN_LIMIT_S = 30.0

_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def hub_settings() -> Any:
    """huggingface_hub's constants, which say where its cache is and whether it may ask anybody.

    Raises
    ------
    SettingsError : a variable cannot be read.
    """
    try:
        from huggingface_hub import constants
        from huggingface_hub.utils import logging as hub_logging
    except ValueError as error:
        raise SettingsError(
            f"huggingface_hub cannot read its settings ({short_reason(error)}); correct {_name_variables('HF_')}."
        ) from None
    if not os.environ.get("HF_HUB_VERBOSITY"):
        # Its warnings name whole addresses, signatures included, and repeat lines of a token's file.
        hub_logging.set_verbosity(logging.CRITICAL)
    return constants


def hub_client() -> Any:
    """huggingface_hub's HTTP client, kept alive between requests.

    Raises
    ------
    SettingsError : a proxy or the certificates that the environment names cannot be used.
    """
    hub_settings()
    from huggingface_hub import get_session

    try:
        return get_session()
    except ImportError:
        raise SettingsError(
            f"{_name_variables(*_PROXIES)} asks for a SOCKS proxy, for which the package socksio is missing; install it "
            "(`pip install socksio`), or name an HTTP proxy."
        ) from None
    except OSError as error:  # an ssl.SSLError is one
        said = error.strerror or short_reason(error)
        raise SettingsError(
            f"The certificates cannot be read ({said}); correct or unset {_name_variables(*_CERTIFICATES)}."
        ) from None
    except Exception as error:  # whatever the client has against a proxy's address, which may hold a password
        kind = type(error).__name__
        raise SettingsError(
            f"{_name_variables(*_PROXIES)} holds an address that is none of a proxy's ({kind}); write it as http://host:port."
        ) from None


def hub_endpoint() -> str:
    """The address of the hub, or of the mirror in HF_ENDPOINT, without a slash at its end.

    Raises
    ------
    SettingsError : it is no address.
    """
    endpoint = str(hub_settings().ENDPOINT)
    try:
        parts = split_url(endpoint)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
        (parts.hostname or "").encode("idna")
    except (HarnessError, UnicodeError):
        is_address = False
    if not is_address:
        raise SettingsError(
            f"HF_ENDPOINT is {_show(endpoint)}, which is no address; write it as https://huggingface.co."
        )
    return endpoint.rstrip("/")


def _show(endpoint: str) -> str:
    try:
        return repr(hide_secrets(endpoint))
    except HarnessError:
        return repr(hide_user(endpoint))


def token_headers() -> dict[str, str]:
    """The header that shows the user's token to the hub; none where there is no token.

    Not huggingface_hub's build_hf_headers: once a day that asks the hub which programs it should name as the caller.

    Raises
    ------
    SettingsError : the token cannot be read, or is none; it is not repeated.
    """
    settings = hub_settings()
    if settings.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        return {}
    from huggingface_hub import get_token

    place = "HF_TOKEN" if os.environ.get("HF_TOKEN") else "the token that `hf auth login` kept (HF_TOKEN_PATH)"
    try:
        token = within(TOKEN_LIMIT_S, get_token)
    except TimeoutError:
        raise SettingsError(
            f"huggingface_hub did not renew the token of `hf auth login` in {TOKEN_LIMIT_S:.0f} s; try again later, or set HF_TOKEN."
        ) from None
    except (OSError, UnicodeError) as error:
        said = getattr(error, "strerror", None) or "it is no text"
        raise SettingsError(f"The token cannot be read ({said}); correct {place}, or run `hf auth login`.") from None
    except Exception as error:  # a login by OpenID Connect, of which huggingface_hub says why it failed
        raise SettingsError(
            f"huggingface_hub finds no token ({type(error).__name__}); correct HF_OIDC_RESOURCE, or set HF_TOKEN."
        ) from None
    if not token:
        return {}
    if not re.fullmatch(r"[\x21-\x7e]+", token):  # it would end the header, or the client's sentence would repeat it
        raise SettingsError(f"What {place} holds is no token: it has characters that none has; copy it once more.")
    return {"authorization": f"Bearer {token}"}


def _name_variables(*prefixes: str) -> str:
    """Those of these variables that are set, in whatever case."""
    found = [name for name in sorted(os.environ) if name.upper().startswith(prefixes) and "TOKEN" not in name]
    return " or ".join(found[:8]) or " or ".join(prefixes)
