"""Which addresses are offered, and how clients are told of STUN and TURN."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from common.errors import InvalidRequest
from services.gateway.media.networks import IceServer, Network, advertised

FOUND = [
    ("lo", "127.0.0.1"),
    ("eth0", "10.1.2.3"),
    ("docker0", "172.17.0.1"),
    ("eth0", "fe80::1"),
    ("eth0", "2001:db8::7"),
]


@pytest.mark.parametrize(
    ("interfaces", "offered"),
    [
        ((), ["10.1.2.3", "172.17.0.1", "2001:db8::7"]),
        (("eth0",), ["10.1.2.3", "fe80::1", "2001:db8::7"]),
        (("10.0.0.0/8",), ["10.1.2.3"]),
        (("172.17.0.1", "lo"), ["127.0.0.1", "172.17.0.1"]),
        (("wlan0",), ["127.0.0.1"]),
    ],
)
def test_addresses_are_offered_by_interface_address_or_network(interfaces: tuple[str, ...], offered: list[str]) -> None:
    assert Network(interfaces=interfaces).host_addresses(FOUND) == offered


def test_a_machine_without_a_network_can_talk_to_itself() -> None:
    assert Network().host_addresses([("lo", "127.0.0.1")]) == ["127.0.0.1"]


def test_the_answer_waits_longer_for_turn_than_for_stun() -> None:
    stun, turn = IceServer("stun:a.example:3478"), IceServer("turn:a.example:3478", "u", "p")
    assert Network((stun,)).gather_s < Network((stun, turn)).gather_s
    assert Network((turn,), gather_timeout_s=0.1).gather_s == 0.1


def test_credentials_of_a_secret_expire_and_are_those_that_coturn_checks() -> None:
    server = IceServer("turns:a.example:5349?transport=tcp", secret="north")
    given = server.for_client(1000.0)
    assert given["username"] == "87400"
    digest = hmac.new(b"north", b"87400", hashlib.sha1).digest()
    assert given["credential"] == base64.b64encode(digest).decode()
    assert IceServer("stun:a.example").for_client(0.0) == {"urls": "stun:a.example"}
    assert Network((IceServer("turn:b", "u", "p"),)).for_clients(0.0)[0]["credential"] == "p"


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        IceServer("http://a.example")
    with pytest.raises(InvalidRequest):
        Network(advertised_addresses=("gateway.example",))


def test_only_our_own_candidates_are_replaced() -> None:
    sdp = "\r\n".join(
        [
            "c=IN IP4 10.1.2.3",
            "a=candidate:1 1 udp 2130706431 10.1.2.3 5000 typ host",
            "a=candidate:2 1 udp 2130706431 10.1.2.4 5001 typ host",
            "a=candidate:3 1 udp 1 198.51.100.2 6000 typ relay raddr 10.1.2.3 rport 5000",
            "",
        ]
    )
    lines = advertised(sdp, ["203.0.113.5", "203.0.113.6"]).split("\r\n")
    assert lines[0] == "c=IN IP4 203.0.113.5"
    assert [line.split()[4:6] for line in lines[1:5]] == [
        ["203.0.113.5", "5000"], ["203.0.113.6", "5000"], ["203.0.113.5", "5001"], ["203.0.113.6", "5001"],
    ]  # fmt: skip
    assert lines[5].split()[4] == "198.51.100.2"
    assert advertised(sdp, []) == sdp
