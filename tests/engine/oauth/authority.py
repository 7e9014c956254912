"""A real authorization server (Authlib's) and a real MCP server (the official SDK's) that takes its tokens, on two ports of
loopback.

Clients register themselves; PKCE is demanded; refresh tokens are good once, and one that is used twice ends its whole family.
What a test wants to go wrong is an attribute (`lies`). `Site` runs both in threads of their own; `browse` is what a person's
browser does.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import uvicorn
from authlib.oauth2 import OAuth2Request
from authlib.oauth2.rfc6749 import AuthorizationServer, grants
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc6750 import BearerTokenGenerator
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc9207 import IssuerParameter
from joserfc import jws, jwt
from joserfc.jwk import ECKey
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

WELL_KNOWN = "/.well-known/"


@dataclass
class Client:
    client_id: str
    secret: str
    redirects: list[str]
    method: str

    def get_client_id(self) -> str:
        return self.client_id

    def get_default_redirect_uri(self) -> str:
        return self.redirects[0]

    def get_allowed_scope(self, scope: str) -> str:
        return scope or ""

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri in self.redirects

    def check_client_secret(self, client_secret: str) -> bool:
        return bool(self.secret) and secrets.compare_digest(self.secret, client_secret)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == self.method

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return True


@dataclass
class Code:
    code: str
    client_id: str
    redirect_uri: str
    scope: str
    resource: str
    code_challenge: str
    code_challenge_method: str

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope


@dataclass
class Token:
    access_token: str
    refresh_token: str
    client_id: str
    scope: str
    resource: str
    until: float
    family: int
    revoked: bool = False
    thumbprint: str = ""  # of the key it is bound to

    def check_client(self, client: Client) -> bool:
        return self.client_id == client.client_id

    def get_scope(self) -> str:
        return self.scope

    def get_expires_in(self) -> int:
        return int(self.until - time.time())

    def is_expired(self) -> bool:
        return self.until < time.time()

    def is_revoked(self) -> bool:
        return self.revoked

    def get_client(self) -> Client:
        raise NotImplementedError

    def get_user(self) -> str:
        return "ada"


@dataclass
class Lies:
    """What is not as it should be. `iss`: what the answer to a sign-in says. `seconds` a token lives; `slow`: of a token's
    request."""

    iss: str | None = ""
    issuer: str = ""
    resource: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    seconds: int = 3600
    slow: float = 0.0
    echo: bool = False  # the MCP server says in its refusals what it was sent
    scope: str = ""  # what the MCP server's tool wants
    bound: bool = False  # tokens are bound to a key (DPoP)
    nonces: bool = False  # proofs hold the nonce that their place gave
    declined: bool = False  # the person says no
    token: Callable[[dict[str, str]], tuple[int, dict[str, Any]]] | None = None  # instead of the token endpoint's own answer


class Site(AuthorizationServer):  # type: ignore[misc]
    """`issuer`, `origin`: by which names the two are known, where that is not how they are reached here (`ports`)."""

    def __init__(self, issuer: str = "", origin: str = "") -> None:
        super().__init__()
        self.lies = Lies()
        self.clients: dict[str, Client] = {}
        self.codes: dict[str, Code] = {}
        self.tokens: list[Token] = []
        self.asked: Counter[str] = Counter()  # grant types at the token endpoint, and calls of the tool
        self.authorized: list[dict[str, str]] = []
        self.given: list[str] = []  # to the MCP server, as tokens
        self.families = 0
        self.proofs: list[str] = []  # every one that was good, by its jti
        self.more: list[Callable[..., Any]] = []  # tools of the MCP server besides
        self._sockets = [_listener(), _listener()]
        self.ports = [one.getsockname()[1] for one in self._sockets]
        here = [f"http://127.0.0.1:{port}" for port in self.ports]
        self.issuer, self.origin = issuer or here[0], origin or here[1]
        self.url = f"{self.origin}/mcp"
        self.register_token_generator("default", BearerTokenGenerator(_random, _random, lambda client, grant: self.lies.seconds))
        self.register_grant(_CodeGrant, [CodeChallenge(required=True)])
        self.register_grant(_RefreshGrant)
        self.register_grant(_ClientGrant)
        self.register_extension(_issuer(self))

    @property
    def places(self) -> list[str]:
        """What a project must be allowed to reach."""
        return [urlsplit(self.issuer).netloc, urlsplit(self.origin).netloc]

    @property
    def secrets(self) -> list[str]:
        """Whatever must be seen nowhere."""
        tokens = [value for token in self.tokens for value in (token.access_token, token.refresh_token) if value]
        return [*tokens, *(client.secret for client in self.clients.values() if client.secret)]

    def live(self, token: str) -> Token | None:
        found = next((one for one in self.tokens if one.access_token == token), None)
        return None if found is None or found.revoked or found.is_expired() else found

    def revoke(self) -> None:
        """Every token, as when the person takes the sign-in back."""
        for token in self.tokens:
            token.revoked = True

    def expire(self) -> None:
        for token in self.tokens:
            token.until = 0.0

    # Authlib's port

    def query_client(self, client_id: str) -> Client | None:
        return self.clients.get(client_id)

    def save_token(self, token: dict[str, Any], request: OAuth2Request) -> None:
        before = request.refresh_token
        if before is None:
            self.families += 1
        self.tokens.append(
            Token(
                token["access_token"],
                token.get("refresh_token", ""),
                request.client.client_id,
                token.get("scope", ""),
                request.payload.data.get("resource", ""),
                time.time() + token["expires_in"],
                self.families if before is None else before.family,
            )
        )

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        pass

    def create_oauth2_request(self, request: Any) -> OAuth2Request:
        return request

    def handle_response(self, status: int, body: Any, headers: Any) -> Response:
        given = dict(headers)
        if status == 302:
            return _Redirect(given["Location"], 302)
        return JSONResponse(body, status, {name: value for name, value in given.items() if name.lower() != "content-type"})

    # HTTP

    async def metadata(self, request: Request) -> Response:
        offered = {
            "issuer": self.lies.issuer or self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "registration_endpoint": f"{self.issuer}/register",
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            "scopes_supported": ["notes", "offline_access"],
            "authorization_response_iss_parameter_supported": True,
            **({"dpop_signing_alg_values_supported": ["ES256"]} if self.lies.bound else {}),
        }
        return JSONResponse({name: value for name, value in {**offered, **self.lies.metadata}.items() if value is not None})

    async def register(self, request: Request) -> Response:
        asked = await request.json()
        client = Client(_random(), _random(), asked["redirect_uris"], asked["token_endpoint_auth_method"])
        self.clients[client.client_id] = client
        return JSONResponse({**asked, "client_id": client.client_id, "client_secret": client.secret}, 201)

    async def authorize(self, request: Request) -> Response:
        """The person is Ada, and agrees to everything."""
        self.authorized.append(dict(request.query_params))
        read = await self._read(request, request.query_params)
        who = None if self.lies.declined else "ada"
        return self.create_authorization_response(read, grant_user=who, grant=self.get_consent_grant(read, "ada"))

    async def token(self, request: Request) -> Response:
        form = await request.form()
        self.asked[str(form["grant_type"])] += 1
        await asyncio.sleep(self.lies.slow)
        if self.lies.token is not None:
            status, answer = self.lies.token({name: str(value) for name, value in form.items()})
            return JSONResponse(answer, status)
        thumbprint = self.proved(request, f"{self.issuer}/token") if self.lies.bound else ""
        if thumbprint is None:
            return JSONResponse({"error": "use_dpop_nonce"}, 400, {"DPoP-Nonce": "of-the-authority"})
        if self.lies.bound and (old := [one for one in self.tokens if one.refresh_token == form.get("refresh_token")]):
            assert [one.thumbprint for one in old] == [thumbprint]
        answered: Response = self.create_token_response(await self._read(request, form))
        if self.lies.bound and answered.status_code == 200:
            self.tokens[-1].thumbprint = thumbprint
            return JSONResponse({**json.loads(bytes(answered.body)), "token_type": "DPoP"})
        return answered

    def proved(self, request: Request, url: str, token: str = "") -> str | None:
        """The thumbprint of the key that a request's proof is made with (RFC 9449 §4.3), None: without the nonce."""
        [proof] = request.headers.getlist("dpop")
        jwk = ECKey.import_key(jws.extract_compact(proof.encode()).headers()["jwk"])
        assert not jwk.is_private
        read = jwt.decode(proof, jwk, algorithms=["ES256"])
        claims = read.claims
        assert read.header["typ"] == "dpop+jwt"
        assert (claims["htm"], claims["htu"]) == (request.method, url)
        assert abs(claims["iat"] - time.time()) < 60 and claims["jti"] not in self.proofs
        digest = hashlib.sha256(token.encode()).digest()
        assert claims.get("ath") == (base64.urlsafe_b64encode(digest).rstrip(b"=").decode() if token else None)
        self.proofs.append(claims["jti"])
        place = "of-the-server" if token else "of-the-authority"
        return None if self.lies.nonces and claims.get("nonce") != place else jwk.thumbprint()

    async def _read(self, request: Request, data: Any) -> OAuth2Request:
        return _Read(request, {name: str(value) for name, value in data.items()})

    async def resource(self, request: Request) -> Response:
        about = {"resource": self.lies.resource or self.url, "authorization_servers": [self.issuer]}
        return JSONResponse({**about, "scopes_supported": ["notes"]})

    # both of them

    @contextmanager
    def serving(self) -> Iterator[Site]:
        authority = Starlette(
            routes=[
                Route(f"{WELL_KNOWN}oauth-authorization-server", self.metadata),
                Route("/register", self.register, methods=["POST"]),
                Route("/authorize", self.authorize),
                Route("/token", self.token, methods=["POST"]),
            ]
        )
        servers = [
            _Quiet(uvicorn.Config(app, log_level="error", lifespan="on", timeout_graceful_shutdown=1))
            for app in (authority, _notes(self))
        ]
        threads = [
            threading.Thread(target=server.run, args=([one],), daemon=True)
            for server, one in zip(servers, self._sockets, strict=True)
        ]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            for server in servers:
                server.should_exit = True
            for thread in threads:
                thread.join(10)


class _Quiet(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Read(OAuth2Request):  # type: ignore[misc]
    def __init__(self, request: Request, data: dict[str, str]) -> None:
        super().__init__(request.method, f"https://authority.test{request.url.path}", headers=request.headers)
        self.payload = BasicOAuth2Payload(data)

    @property
    def args(self) -> dict[str, str]:
        return dict(self.payload.data)

    @property
    def form(self) -> dict[str, str]:
        return dict(self.payload.data)


class _Redirect(RedirectResponse):
    @property
    def location(self) -> str:
        return self.headers["location"]

    @location.setter
    def location(self, place: str) -> None:
        self.headers["location"] = place


class _CodeGrant(grants.AuthorizationCodeGrant):  # type: ignore[misc]
    TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic", "client_secret_post", "none"]  # noqa: RUF012

    def save_authorization_code(self, code: str, request: OAuth2Request) -> None:
        data = request.payload.data
        self.server.codes[code] = Code(
            code,
            request.client.client_id,
            data["redirect_uri"],
            data.get("scope", ""),
            data["resource"],
            data["code_challenge"],
            data["code_challenge_method"],
        )

    def query_authorization_code(self, code: str, client: Client) -> Code | None:
        found = self.server.codes.get(code)
        resource = self.request.payload.data.get("resource")
        return found if found is not None and (found.client_id, found.resource) == (client.client_id, resource) else None

    def delete_authorization_code(self, authorization_code: Code) -> None:
        del self.server.codes[authorization_code.code]

    def authenticate_user(self, authorization_code: Code) -> str:
        return "ada"

    def generate_token(self, *args: Any, **kwargs: Any) -> Any:
        return self.server.generate_token(self.GRANT_TYPE, self.request.client, **{**kwargs, "include_refresh_token": True})


class _RefreshGrant(grants.RefreshTokenGrant):  # type: ignore[misc]
    INCLUDE_NEW_REFRESH_TOKEN = True
    TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic", "client_secret_post", "none"]  # noqa: RUF012

    def authenticate_refresh_token(self, refresh_token: str) -> Token | None:
        found = next((one for one in self.server.tokens if one.refresh_token == refresh_token), None)
        if found is not None and found.revoked:  # used twice: whoever it was, it ends for both
            for one in self.server.tokens:
                one.revoked = one.revoked or one.family == found.family
        return None if found is None or found.revoked else found

    def authenticate_user(self, refresh_token: Token) -> str:
        return "ada"

    def revoke_old_credential(self, refresh_token: Token) -> None:
        refresh_token.revoked = True


class _ClientGrant(grants.ClientCredentialsGrant):  # type: ignore[misc]
    pass


def _issuer(site: Site) -> Any:
    class Issuer(IssuerParameter):  # type: ignore[misc]
        def get_issuer(self) -> str | None:
            return site.issuer if site.lies.iss == "" else site.lies.iss

    return Issuer()


def _notes(site: Site) -> Any:
    """The MCP server, behind a guard that knows the authority's tokens."""
    server = MCPServer("notes")

    @server.tool()
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        site.asked["add"] += 1
        return a + b

    for tool in site.more:
        server.add_tool(tool)
    app = server.streamable_http_app(transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False))
    app.router.routes.append(Route(f"{WELL_KNOWN}oauth-protected-resource/mcp", site.resource))

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/mcp":
            request = Request(scope)
            scheme = "DPoP" if site.lies.bound else "Bearer"
            given = request.headers.get("authorization", "").removeprefix(f"{scheme} ")
            site.given.append(given)
            token = site.live(given)
            about = f'resource_metadata="{site.origin}{WELL_KNOWN}oauth-protected-resource/mcp"'
            said = {"error": "invalid_token", **({"sent": given} if site.lies.echo else {})}
            if token is None or token.resource != site.url:
                await JSONResponse(said, 401, {"WWW-Authenticate": f'{scheme} {about}, scope="notes"'})(scope, receive, send)
                return
            if site.lies.bound and site.proved(request, f"{site.origin}/mcp", given) != token.thumbprint:
                headers = {"WWW-Authenticate": f'DPoP error="use_dpop_nonce", {about}', "DPoP-Nonce": "of-the-server"}
                await JSONResponse({"error": "use_dpop_nonce"}, 401, headers)(scope, receive, send)
                return
            wanted = site.lies.scope
            if wanted and wanted not in token.scope.split() and request.headers.get("mcp-method") == "tools/call":
                challenge = f'Bearer error="insufficient_scope", {about}, scope="{wanted}"'
                await JSONResponse({"error": "insufficient_scope"}, 403, {"WWW-Authenticate": challenge})(scope, receive, send)
                return
        await app(scope, receive, send)

    return guarded


def browse(link: str) -> dict[str, str]:
    """Opens the link, agrees, and tells what it is sent back with."""
    page = httpx2.get(link, follow_redirects=False)
    assert page.status_code == 302, page.text
    return {name: values[0] for name, values in parse_qs(urlsplit(page.headers["location"]).query).items()}


def _listener() -> socket.socket:
    one = socket.socket()
    one.bind(("127.0.0.1", 0))
    one.listen(128)
    return one


def _random(*args: Any, **kwargs: Any) -> str:
    return secrets.token_urlsafe(30)
