"""Who is let in: keys, tokens, scopes; what a refusal says and what is logged of it."""

from __future__ import annotations

import hashlib
import logging
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import ConfigError, load
from common.errors import AccessDenied, MeshError, Overloaded
from services.gateway.access import CONVERSATION, OPERATE, SPEECH, Shown, keep_visit, spend_text
from services.gateway.access.caller import scope_of_method, scope_of_path
from services.gateway.access.door import secret_of
from services.gateway.access.keys import records_of_file, records_of_text
from services.gateway.access.tokens import Key
from services.gateway.config import GatewayConfig
from tests.gateway.access.tokens import SECRET, Authority, ec_key, forged, jwks, public_pem, rsa_key, token

KEY = "a-long-and-random-key-of-ada"


def door(**settings: Any) -> Any:
    return GatewayConfig(port=0, **settings).door()


def caller_of(opened: Any, secret: str, scope: str = SPEECH) -> str:
    with opened.admit(Shown(secret), scope) as visit:
        return str(visit.caller.name)


def refusal_of(opened: Any, secret: str, scope: str = SPEECH) -> MeshError:
    with pytest.raises(MeshError) as refused:
        caller_of(opened, secret, scope)
    return refused.value


def test_a_key_lets_its_owner_in_and_no_other_does() -> None:
    opened = door(api_keys=f"ada={KEY}, bob=sha256:{hashlib.sha256(b'b' * 20).hexdigest()}")
    assert caller_of(opened, KEY) == "ada"
    assert caller_of(opened, "b" * 20) == "bob"
    for wrong in ("", "x", KEY[:-1], KEY + "x", KEY.upper(), hashlib.sha256(KEY.encode()).hexdigest(), "\udcff"):
        assert isinstance(refusal_of(opened, wrong), AccessDenied)


def test_a_file_of_keys_holds_hashes_scopes_and_limits(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    path.write_text(f"keys:\n  - {{name: ada, sha256: {digest}, scopes: [operate], max_sessions: 1}}\n")
    opened = door(api_keys_file=path, key_calls_per_minute=2)
    with opened.admit(Shown(KEY), OPERATE) as visit:
        assert (visit.caller.limits.max_sessions, visit.caller.limits.calls_per_minute) == (1, 2)
        assert isinstance(refusal_of(opened, KEY, OPERATE), Overloaded)
    assert isinstance(refusal_of(opened, KEY, SPEECH), AccessDenied)


@pytest.mark.parametrize(
    "text",
    [
        "no list",
        "keys: [{name: ada}]",
        "keys: [{name: ada, sha256: short}]",
        f"keys: [{{name: 'a b', sha256: {'0' * 64}}}]",
        f"keys: [{{name: ada, sha256: {'0' * 64}, scopes: [everything]}}]",
        f"keys: [{{name: ada, sha256: {'0' * 64}, key: secret}}]",
        f"keys: [{{name: ada, sha256: {'0' * 64}}}, {{name: ada, sha256: {'1' * 64}}}]",
        "keys: [",
    ],
)
def test_a_file_of_keys_that_is_none_is_refused_without_quoting_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="key") as refused:
        records_of_file(path)
    assert "secret" not in str(refused.value)


def test_a_short_key_in_a_variable_is_refused() -> None:
    with pytest.raises(ValueError, match="16 random characters"):
        records_of_text("ada=short")


def test_a_token_of_the_shared_secret_lets_in_who_it_names() -> None:
    opened = door(jwt_secret=SECRET, jwt_issuer="us", jwt_audience="voice")
    good: dict[str, Any] = {"iss": "us", "aud": ["voice", "other"]}
    assert caller_of(opened, token(**good)) == "jwt:ada"
    wrong: dict[str, dict[str, Any]] = {
        "expired": {**good, "exp": time.time() - 60},
        "yet": {**good, "nbf": time.time() + 600},
        "somebody else": {**good, "aud": "other"},
        "from somebody else": {**good, "iss": "them"},
        "lacks the claim exp": {**good, "exp": None},
        "lacks the claim aud": {**good, "aud": None},
    }
    for sentence, claims in wrong.items():
        assert sentence in refusal_of(opened, token(**claims)).message
    assert "not signed" in refusal_of(opened, token("x" * 32, **good)).message
    assert (
        "not signed"
        in refusal_of(opened, jwt.encode({"sub": "ada", "exp": time.time() + 9, **good}, "", "none")).message
    )


def test_scopes_of_a_token_are_what_it_may_do() -> None:
    opened = door(jwt_secret=SECRET)
    assert caller_of(opened, token(scope="operate openid"), OPERATE) == "jwt:ada"
    assert caller_of(opened, token(scp=["speech"])) == "jwt:ada"
    assert caller_of(opened, token(), CONVERSATION) == "jwt:ada"
    for claims, scope in (
        ({"scope": "operate"}, SPEECH),
        ({}, OPERATE),
        ({"scope": ""}, SPEECH),
        ({"scope": 7}, SPEECH),
    ):
        assert "does not allow" in refusal_of(opened, token(**claims), scope).message


def test_public_keys_verify_with_their_own_algorithm_only(tmp_path: Path) -> None:
    first, second, stranger = rsa_key(), ec_key(), ec_key()
    path = jwks(tmp_path, first=first, second=second)
    opened = door(jwt_jwks_file=path, jwt_secret=SECRET)
    assert caller_of(opened, token(first, "RS256", "first")) == "jwt:ada"
    assert caller_of(opened, token(second, "ES256", "second")) == "jwt:ada"
    assert caller_of(opened, token()) == "jwt:ada"
    strange = [
        token(stranger, "ES256", "second"),
        token(first, "RS256", "second"),
        forged(public_pem(first), "first"),
        forged(public_pem(second), "second"),
        forged(path.read_bytes(), "first"),
        token(SECRET, "HS256", "first"),
        token(first, "RS256"),
        token(first, "PS256", "first"),
    ]
    for one in strange:
        assert "not signed" in refusal_of(opened, one).message
    assert "not known" in refusal_of(door(jwt_jwks_file=path), token(second, "ES256", "third")).message


def test_a_room_token_of_livekit_opens_a_conversation_and_nothing_else() -> None:
    opened = door(livekit_tokens=True, livekit_api_key="APIkey", livekit_api_secret=SECRET, jwt_secret="t" * 32)
    room: dict[str, Any] = {"iss": "APIkey", "video": {"roomJoin": True, "room": "r"}}
    assert caller_of(opened, token(**room), CONVERSATION) == "livekit:ada"
    assert "does not allow" in refusal_of(opened, token(**room), SPEECH).message
    assert "join a room" in refusal_of(opened, token(iss="APIkey", video={}), CONVERSATION).message
    assert "expired" in refusal_of(opened, token(**room, exp=1), CONVERSATION).message
    assert "not signed" in refusal_of(opened, token("t" * 32, **room), CONVERSATION).message
    assert caller_of(opened, token("t" * 32), CONVERSATION) == "jwt:ada"


@given(st.text(max_size=60) | st.from_regex(r"[A-Za-z0-9_-]{0,12}\.[A-Za-z0-9_-]{0,12}\.[A-Za-z0-9_-]{0,12}"))
def test_whatever_is_shown_gets_an_answer(shown: str) -> None:
    opened = door(
        jwt_secret=SECRET, livekit_tokens=True, livekit_api_key="k", livekit_api_secret=SECRET, api_keys=f"ada={KEY}"
    )
    assert isinstance(refusal_of(opened, shown), AccessDenied)


def test_text_is_counted_against_who_calls() -> None:
    opened = door(api_keys=f"ada={KEY},bob={KEY}2", key_characters_per_minute=100)
    with opened.admit(Shown(KEY), SPEECH):
        spend_text(90)
        with pytest.raises(Overloaded) as refused:
            spend_text(40)
        assert 0 < refused.value.retry_after_s <= 60
    with opened.admit(Shown(KEY + "2"), SPEECH):
        spend_text(90)
    spend_text(10**9)  # nobody calls


def test_what_outlives_its_call_counts_until_it_is_let_go_of() -> None:
    opened = door(api_keys=f"ada={KEY}", key_max_sessions=1)
    with opened.admit(Shown(KEY), SPEECH):
        let_go = keep_visit()
    assert isinstance(refusal_of(opened, KEY), Overloaded)
    let_go()
    let_go()
    assert caller_of(opened, KEY) == caller_of(opened, KEY) == "ada"
    keep_visit()()  # nobody calls


def test_a_flood_of_refusals_is_one_line_a_second_and_shows_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    opened = door(api_keys=f"ada={KEY}", key_calls_per_minute=1)
    with caplog.at_level(logging.DEBUG):
        caller_of(opened, KEY)
        for i in range(500):
            refusal_of(opened, f"stranger-{i}-secret")
            refusal_of(opened, KEY)
    began_s = caplog.records[0].created
    seconds = caplog.records[-1].created - began_s
    assert 2 <= len(caplog.records) <= 2 * (seconds + 2)
    assert {record.__dict__["caller"] for record in caplog.records} == {"", "ada"}
    logged = " ".join(str(record.__dict__) for record in caplog.records)
    assert KEY not in logged
    assert "stranger-" not in logged


def test_where_a_secret_may_be_shown() -> None:
    assert secret_of({"authorization": "Bearer x.y"}) == "x.y"
    assert secret_of({"authorization": "bearer  x "}) == "x"
    assert secret_of({"x-api-key": "x"}) == "x"
    assert secret_of({"sec-websocket-protocol": "realtime, openai-insecure-api-key.x"}) == "x"
    assert secret_of({"authorization": "Basic x"}) == ""
    assert secret_of({}) == ""


def test_what_each_method_and_path_needs() -> None:
    conversation = "/voicemesh.gateway.v1.ConversationService/"
    assert scope_of_method("/voicemesh.gateway.v1.SpeechService/Synthesize") == SPEECH
    assert scope_of_method(conversation + "Converse") == CONVERSATION
    for name in ("ListSessions", "GetSession", "GetTimeline", "Say", "Interrupt"):
        assert scope_of_method(conversation + name) == OPERATE
    assert scope_of_path("/v1/audio/speech") == scope_of_path("/v1/models/x") == SPEECH
    assert scope_of_path("/v1/realtime/calls/x") == scope_of_path("/whip") == CONVERSATION
    assert scope_of_path("/v1/sessions") == scope_of_path("/anything/new") == OPERATE
    assert [scope_of_path(path) for path in ("/", "/healthz", "/readyz", "/page/app.js")] == [None] * 4


def loaded(*flags: str, **environ: str) -> GatewayConfig:
    return load(GatewayConfig, flags, environ={f"VOICEMESH_GATEWAY_{key}": value for key, value in environ.items()})


def test_beyond_loopback_the_gateway_needs_tls_and_keys_or_its_word(tmp_path: Path) -> None:
    pair = Authority(tmp_path).signed("gateway")
    tls = ("--tls-certificate-file", str(pair.certificate), "--tls-key-file", str(pair.key))
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(ConfigError, match=r"needs TLS.*and keys.*--insecure"):
            loaded("--host", host)
        with pytest.raises(ConfigError, match="needs keys"):
            loaded("--host", host, *tls)
        with pytest.raises(ConfigError, match="needs TLS"):
            loaded("--host", host, API_KEYS=f"ada={KEY}")
        assert loaded("--host", host, "--insecure").insecure
        assert loaded("--host", host, *tls, API_KEYS=f"ada={KEY}").wants_secret
        assert loaded("--host", host, *tls, "--tls-client-ca-file", str(pair.certificate)).door().is_open is False
    for host in ("127.0.0.1", "127.0.0.9", "::1", "localhost"):
        assert loaded("--host", host).door().is_open


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"JWT_SECRET": "short"}, "32 bytes"),
        ({"API_KEYS": "ada"}, "16 random"),
        ({"LIVEKIT_API_KEY": "k"}, "go together"),
        ({"LIVEKIT_TOKENS": "true"}, "needs livekit_api_key"),
        ({"LIVEKIT_URL": "wss://x"}, "needs livekit_token"),
        ({"STAGE_NAME": "localhost"}, "stage_ca_file"),
    ],
)
def test_what_cannot_be_is_said_at_the_start(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as refused:
        loaded(**environ)
    assert "short" not in str(refused.value)


def test_the_effective_configuration_shows_no_secret() -> None:
    config = loaded(JWT_SECRET=SECRET, API_KEYS=f"ada={KEY}", LIVEKIT_API_KEY="k", LIVEKIT_API_SECRET=SECRET)
    shown = f"{config!r} {config.model_dump(mode='json')} {Key('HS256', SECRET)} {Shown(KEY)}"
    assert SECRET not in shown
    assert KEY not in shown
