"""What drive.py needs for `--oauth`: the SDK's own providers, and a user agent without a browser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp.client.auth import OAuthClientProvider
from mcp.client.auth.extensions.client_credentials import (
    ClientCredentialsOAuthProvider,
    PrivateKeyJWTOAuthProvider,
    SignedJWTParameters,
)
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

REDIRECT = "http://127.0.0.1:1/callback"  # nobody listens there: the answer is read from the redirect itself


class Memory:
    """Keeps tokens and the client's registration while the driver runs."""

    def __init__(self, client: OAuthClientInformationFull | None = None) -> None:
        self.client, self.tokens = client, None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client: OAuthClientInformationFull) -> None:
        self.client = client


class Browser:
    """Opens the authorization URL, and hands over what it is redirected with."""

    def __init__(self, emit: Callable[[dict[str, Any]], None]) -> None:
        self.emit = emit
        self.answer: dict[str, str] = {}

    async def open(self, url: str) -> None:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        self.emit({"step": "authorize", "scope": asked.get("scope"), "resource": asked.get("resource")})
        async with httpx2.AsyncClient(trust_env=False) as http:
            answer = await http.get(url)
        location = answer.headers.get("location", "")
        if answer.status_code != 302 or not location.startswith(f"{REDIRECT}?"):
            raise RuntimeError(f"no redirect to the client: {answer.status_code} {location or answer.text}")
        self.answer = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}

    async def result(self) -> AuthorizationCodeResult:
        if "code" not in self.answer:
            raise RuntimeError(f"not authorized: {self.answer}")
        known = {name: self.answer.get(name) for name in ("code", "state", "iss")}
        return AuthorizationCodeResult(**known)


def provider(url: str, asked: dict[str, Any], emit: Callable[[dict[str, Any]], None]) -> OAuthClientProvider:
    """The SDK's provider for what `--oauth` asks for."""
    client, scope = asked.get("client_id"), asked.get("scope")
    if asked.get("client_secret"):
        method = asked.get("method", "client_secret_basic")
        return ClientCredentialsOAuthProvider(
            url, Memory(), client, asked["client_secret"], method, scope, issuer=asked["issuer"]
        )
    if asked.get("private_key"):
        signed = SignedJWTParameters(
            issuer=client, subject=client, signing_key=asked["private_key"], signing_algorithm=asked["algorithm"]
        )
        assertion = signed.create_assertion_provider()
        return PrivateKeyJWTOAuthProvider(url, Memory(), client, assertion, scope, issuer=asked["issuer"])
    metadata = OAuthClientMetadata(
        redirect_uris=[REDIRECT], client_name="callgate-test-python", token_endpoint_auth_method="none"
    )
    known = OAuthClientInformationFull(**{**metadata.model_dump(), "client_id": client}) if client else None
    browser = Browser(emit)
    return OAuthClientProvider(url, metadata, Memory(known), browser.open, browser.result)
