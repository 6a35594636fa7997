"""A platform's address and key, and how its other addresses follow from it. No I/O."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, urlsplit

from kingpost.errors import ConflictError, InvalidInputError

BASETEN_URL: Final = "https://api.baseten.co"
BASETEN_APP_URL: Final = "https://app.baseten.co"
LOCAL_URL: Final = "http://localhost:8000"

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Remote:
    """A platform to talk to. `url` is an origin as `normalize_url` gives it.

    `insecure` is the user's consent to send the key unencrypted to another machine; `ca_file`
    is a certificate authority to trust for this remote only.
    """

    name: str
    url: str
    api_key: str | None = field(default=None, repr=False)
    insecure: bool = False
    ca_file: str | None = None

    @property
    def is_baseten(self) -> bool:
        return self.url == BASETEN_URL

    @property
    def sends_key_in_clear(self) -> bool:
        """Whether a key would cross a network unencrypted."""
        return self.url.startswith("http://") and not is_loopback(self.url)

    def inference_url(self, model_id: str, target: str = "") -> str:
        """Base of a model's inference addresses; `target` as `deployment/abcd1234`."""
        if self.is_baseten:
            base = f"https://model-{model_id}.api.baseten.co"
        else:
            base = f"{self.url}/model/{model_id}"
        return f"{base}/{target}" if target else base

    def logs_url(self, model_id: str, deployment_id: str) -> str:
        """The page that shows a deployment's state and log."""
        app = BASETEN_APP_URL if self.is_baseten else self.url
        return f"{app}/models/{model_id}/logs/{deployment_id}"


def normalize_url(url: str) -> str:
    """The origin of a platform's address in one spelling; Baseten's app address becomes its API's.

    Raises InvalidInputError for anything but `http(s)://host[:port]`.
    """
    text = url.strip().rstrip("/")
    if "://" not in text:
        raise InvalidInputError(
            f"{text!r} is not an address: expected http://HOST:PORT or https://HOST[:PORT]."
        )
    try:
        parts = urlsplit(text)
        port = parts.port
        host = (parts.hostname or "").rstrip(".")
        shown = _host_text(host)
    except ValueError as error:
        raise InvalidInputError(f"{text!r} is not an address: {error}.") from None
    if parts.scheme not in _DEFAULT_PORTS or not host:
        raise InvalidInputError(
            f"{text!r} is not an address: expected http://HOST:PORT or https://HOST[:PORT]."
        )
    if parts.username is not None or parts.password is not None:
        raise InvalidInputError("An address holds no user or password; keys are asked for apart.")
    if parts.path or parts.query or parts.fragment:
        raise InvalidInputError(f"Expected only scheme, host and port, without {parts.path!r}.")
    netloc = shown if port in {None, _DEFAULT_PORTS[parts.scheme]} else f"{shown}:{port}"
    origin = f"{parts.scheme}://{netloc}"
    return BASETEN_URL if origin == BASETEN_APP_URL else origin


def is_loopback(url: str) -> bool:
    """Whether an address leads to this machine without leaving it."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def segment(text: str) -> str:
    """`text` as one segment of a path, whatever it holds."""
    quoted = quote(text, safe="")
    return quoted.replace(".", "%2E") if quoted in {".", ".."} else quoted


def check_key(key: str) -> str:
    """A key as it may stand in a header. Raises InvalidInputError without repeating the key."""
    stripped = key.strip()
    if not stripped:
        raise InvalidInputError("The API key is empty.")
    if not (stripped.isascii() and stripped.isprintable() and " " not in stripped):
        raise InvalidInputError("An API key has only printable ASCII characters and no spaces.")
    return stripped


def refuse_clear_key(remote: Remote) -> None:
    """Raises ConflictError where the key would cross a network unencrypted without consent."""
    if remote.api_key and remote.sends_key_in_clear and not remote.insecure:
        raise ConflictError(
            f"{remote.url} is not encrypted and not this machine, so the key was not sent. Use "
            f"https, or accept the risk: kingpost login {_login_name(remote)} --url {remote.url} "
            "--insecure"
        )


def _host_text(host: str) -> str:
    if ":" in host:
        return f"[{ipaddress.IPv6Address(host.partition('%')[0])}]"
    if any(c.isspace() or c in "/\\@?#%<>\"'" or not c.isprintable() for c in host):
        raise ValueError("its host has a character that no host has")
    return host


def _login_name(remote: Remote) -> str:
    return remote.name if "://" not in remote.name else "NAME"
