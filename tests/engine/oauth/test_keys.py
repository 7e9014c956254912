"""What is signed by a key of ours: who a client is, and that a token is sent by whom it was given to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey

from rootlink.engine.oauth import keys
from rootlink.engine.rpc import RpcError
from rootlink.errors import Invalid
from rootlink.wire.engine import EgressPolicy, Environment
from rootlink.wire.mounts import Identity, MountSpec, OAuth
from tests.engine.oauth.authority import Client, Site, Token
from tests.engine.oauth.test_sign_in import REDIRECT, Held, engine


def pem(key: Any, *, passphrase: bytes | None = None) -> str:
    lock = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return str(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock).decode())


P256 = pem(ec.generate_private_key(ec.SECP256R1()))
KINDS: dict[str, tuple[str, Any]] = {
    "ES256": (P256, ECKey),
    "ES384": (pem(ec.generate_private_key(ec.SECP384R1())), ECKey),
    "RS256": (pem(rsa.generate_private_key(65537, 2048)), RSAKey),
    "EdDSA": (pem(ed25519.Ed25519PrivateKey.generate()), OKPKey),
}


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # what servers know; RFC 9864's name is new
@pytest.mark.parametrize("algorithm", KINDS)
def test_a_client_says_who_it_is_by_the_algorithm_of_its_key_and_to_the_issuer_alone(algorithm: str) -> None:
    text, kind = KINDS[algorithm]
    said = keys.assertion(keys.Key(text), "ours", "https://as.example", 1000.0)
    read = jwt.decode(said, kind.import_key(text), algorithms=[algorithm])
    assert read.header == {"typ": "JWT", "alg": algorithm}
    jti = read.claims.pop("jti")
    assert len(jti) > 20 and jti not in keys.assertion(keys.Key(text), "ours", "https://as.example", 1000.0)
    assert read.claims == {"iss": "ours", "sub": "ours", "aud": "https://as.example", "iat": 1000, "exp": 1060}


@pytest.mark.parametrize(
    "text",
    [
        pem(ec.generate_private_key(ec.SECP521R1())),
        pem(rsa.generate_private_key(65537, 1024)),
        pem(ec.generate_private_key(ec.SECP256R1()), passphrase=b"x"),
        "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----",
        "hunter2",
        "",
    ],
)
def test_a_key_that_cannot_be_used_is_refused_in_words_without_it(text: str) -> None:
    with pytest.raises(Invalid, match="must be the PEM") as refused:
        keys.Key(text)
    assert "hunter2" not in refused.value.message
    assert refused.value.__cause__ is None


def test_a_key_is_not_shown() -> None:
    assert repr(keys.Key(P256)) == "Key(ES256)"


def test_a_proof_is_for_one_method_and_place_and_names_no_query() -> None:
    key = keys.Key(keys.made())
    said = keys.proof(key, "POST", "https://s.example:8443/mcp?key=hunter2#x", 1000.0, token="abc", nonce="n")
    shown: dict[str, Any] = {**key.public}
    public = ECKey.import_key(shown)
    assert not public.is_private
    claims = jwt.decode(said, public, algorithms=["ES256"]).claims
    assert (claims["htm"], claims["htu"], claims["nonce"]) == ("POST", "https://s.example:8443/mcp", "n")
    assert claims["ath"] == "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0"


# an engine, at a real authorization server


@pytest.fixture
def site() -> Iterator[Site]:
    with Site().serving() as one:
        yield one


@pytest.fixture
async def held(tmp_path: Path, site: Site) -> AsyncIterator[Held]:
    async with engine(tmp_path, site) as one:
        yield one


@pytest.mark.parametrize("nonces", [False, True])
async def test_tokens_are_bound_to_a_key_of_the_sign_in_and_renewed_with_it(held: Held, site: Site, nonces: bool) -> None:
    site.lies.bound, site.lies.nonces = True, nonces
    ended = await held.connect()
    assert ended.done is not None, ended
    assert (await held.add())["structuredContent"] == {"result": 42}
    held.age()
    assert (await held.add())["structuredContent"] == {"result": 42}
    first, second = held.kept()[0], held.kept()[-1]
    assert first.key is not None and "PRIVATE KEY" in first.key
    assert {grant.key for grant in (first, second)} == {first.key}
    assert site.asked["refresh_token"] == 1
    assert len({token.thumbprint for token in site.tokens}) == 1
    assert len(site.proofs) > 6
    redact = held.engine._redactor
    assert not [line for line in first.key.splitlines() if "-----" not in line and line in redact(f"a key: {first.key}")]


async def test_the_next_engine_goes_on_with_the_key(tmp_path: Path, site: Site) -> None:
    site.lies.bound = True
    async with engine(tmp_path, site) as first:
        await first.connect()
        grants = await first.taken()
    async with engine(tmp_path, site, secrets=grants) as second:
        async with asyncio.timeout(20):
            while second.engine.mounts.get("main", "notes").state != "ready":
                await asyncio.sleep(0.02)
        second.age()
        assert (await second.add())["structuredContent"] == {"result": 42}
    assert len({token.thumbprint for token in site.tokens}) == 1


async def test_a_server_that_wants_no_proofs_gets_a_bearer_though_its_authority_could(held: Held, site: Site) -> None:
    site.lies.metadata["dpop_signing_alg_values_supported"] = ["ES256"]
    await held.connect()
    assert (await held.add())["structuredContent"] == {"result": 42}
    assert [grant.key for grant in held.kept()] == [None]


# a client that signs who it is


class Clerk:
    """A token endpoint that believes what `key` signed, and writes down what it was asked."""

    def __init__(self, site: Site, key: str) -> None:
        self.site, self.key = site, key
        self.asked: list[dict[str, str]] = []

    def __call__(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        self.asked.append(form)
        said = form.get("client_assertion") or form.get("assertion") or ""
        try:
            jwt.decode(said, ECKey.import_key(self.key), algorithms=["ES256"])
        except Exception:
            return 401, {"error": "invalid_client", "error_description": f"no: {said}"}
        token = f"token-{len(self.asked)}-{time.time()}"
        self.site.tokens.append(Token(token, "", "ours", "notes", self.site.url, time.time() + 3600, 1))
        return 200, {"access_token": token, "token_type": "Bearer", "expires_in": 3600}


def unattended(site: Site, **members: Any) -> MountSpec:
    asked = OAuth("NOTES_GRANT", "", client_id="ours", **members)
    return MountSpec("notes", "http", endpoint=site.url, oauth=asked)


async def environment(held: Held, site: Site, **secrets: str) -> None:
    policy = EgressPolicy(allow=site.places, private=["127.0.0.0/8"])
    await held.engine._environment(Environment({**await held.taken(), **secrets}, policy))


async def test_a_client_with_a_key_needs_nobody_and_a_key_set_anew_is_used_at_once(tmp_path: Path, site: Site) -> None:
    clerk = site.lies.token = Clerk(site, P256)
    async with engine(tmp_path, site, secrets={"APP_KEY": P256}) as held:
        ended = await held.apply(unattended(site, private_key="${APP_KEY}"))
        assert ended.done is not None, ended
        assert (await held.add())["structuredContent"] == {"result": 42}
        assert {form["grant_type"] for form in clerk.asked} == {"client_credentials"}
        assert {form["client_id"] for form in clerk.asked} == {"ours"}
        clerk.key = pem(ec.generate_private_key(ec.SECP256R1()))
        held.age()
        with pytest.raises(RpcError, match="rootlink secrets set") as refused:
            await held.add()
        assert clerk.asked[-1]["client_assertion"] not in str(refused.value)
        asked = len(clerk.asked)
        with pytest.raises(RpcError, match="rootlink secrets set"):
            await held.add()
        assert len(clerk.asked) == asked, "it was said once"
        await environment(held, site, APP_KEY=clerk.key)
        assert (await held.add())["structuredContent"] == {"result": 42}


async def test_a_person_signs_in_as_a_client_with_a_key(tmp_path: Path, site: Site) -> None:
    clerk = site.lies.token = Clerk(site, P256)
    site.clients["ours"] = Client("ours", "", [REDIRECT], "private_key_jwt")
    async with engine(tmp_path, site, secrets={"APP_KEY": P256}) as held:
        asked = OAuth("NOTES_GRANT", REDIRECT, client_id="ours", private_key="${APP_KEY}")
        ended = await held.connect(msgspec.structs.replace(held.spec, oauth=asked))
        assert ended.done is not None, ended
        assert (await held.add())["structuredContent"] == {"result": 42}
        [form] = clerk.asked
        assert (form["grant_type"], "client_secret" in form) == ("authorization_code", False)
        [grant] = held.kept()
        assert (grant.client.method, grant.client.secret) == ("private_key_jwt", P256)


async def test_a_key_that_is_none_ends_the_connect_in_words(tmp_path: Path, site: Site) -> None:
    async with engine(tmp_path, site, secrets={"APP_KEY": "hunter2-no-key"}) as held:
        ended = await held.apply(unattended(site, private_key="${APP_KEY}"))
        assert ended.failed is not None and "must be the PEM" in ended.failed["message"]
        assert "hunter2" not in ended.failed["message"]


async def test_a_workloads_jwt_is_taken_for_a_token_and_one_set_anew_when_it_ended(tmp_path: Path, site: Site) -> None:
    clerk = site.lies.token = Clerk(site, P256)
    good = keys.assertion(keys.Key(P256), "workload", site.issuer, time.time())
    async with engine(tmp_path, site, secrets={"JOB": "ended.long.ago"}) as held:
        ended = await held.apply(unattended(site, assertion="${JOB}"))
        assert ended.failed is not None and "[secret JOB]" in ended.failed["message"], ended
        assert len(clerk.asked) == 1, "it is not tried again, nor in another way"
    async with engine(tmp_path, site, secrets={"JOB": good}) as held:
        assert (await held.apply(unattended(site, assertion="${JOB}"))).done is not None
        assert (await held.add())["structuredContent"] == {"result": 42}
        form = clerk.asked[-1]
        assert (form["grant_type"], form["assertion"]) == ("urn:ietf:params:oauth:grant-type:jwt-bearer", good)


async def test_who_somebody_is_to_their_company_is_exchanged_for_a_token(tmp_path: Path, site: Site) -> None:
    """The test's identity provider is the same site, which tells the two apart by what is asked."""
    word = keys.assertion(keys.Key(P256), "provider", site.issuer, time.time())
    clerk = Clerk(site, P256)
    exchanged: list[dict[str, str]] = []

    def both(form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        if not form["grant_type"].endswith("token-exchange"):
            return clerk(form)
        exchanged.append(form)
        kind = "urn:ietf:params:oauth:token-type:id-jag"
        return 200, {"access_token": word, "issued_token_type": kind, "token_type": "N_A"}

    site.lies.token = both
    identity = Identity(f"{site.issuer}/token", "at-the-provider", "${ID_TOKEN}")
    async with engine(tmp_path, site, secrets={"ID_TOKEN": "who.ada.is", "SECRET": "of-the-client"}) as held:
        ended = await held.apply(unattended(site, identity=identity, client_secret="${SECRET}"))
        assert ended.done is not None, ended
        assert (await held.add())["structuredContent"] == {"result": 42}
    assert {(form["subject_token"], form["audience"], form["resource"]) for form in exchanged} == {
        ("who.ada.is", site.issuer, site.url)
    }
    assert {form["assertion"] for form in clerk.asked} == {word}


async def test_a_provider_that_answers_with_another_kind_of_token_is_refused(tmp_path: Path, site: Site) -> None:
    site.lies.token = lambda form: (200, {"access_token": "an-access-token", "token_type": "Bearer"})
    identity = Identity(f"{site.issuer}/token", "at-the-provider", "who.ada.is")
    async with engine(tmp_path, site) as held:
        ended = await held.apply(unattended(site, identity=identity))
        assert ended.failed is not None and "without what was asked for" in ended.failed["message"]


async def test_without_a_person_something_of_the_clients_own_is_needed(held: Held, site: Site) -> None:
    ended = await held.apply(unattended(site))
    assert ended.failed is not None and "client_secret or private key" in ended.failed["message"]
