"""How a platform chooses its ports."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded import ports
from include.error_codes import Code
from tests.errors import raises


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as server:
        server.bind((ports.HOST, 0))
        server.listen()
        yield server.getsockname()[1]


def test_the_ports_of_the_last_start_are_used_again() -> None:
    first = ports.choose({})
    assert ports.choose(first) == first
    assert len(set(first.values())) == len(ports.USUAL)


def test_a_taken_port_is_replaced_by_a_free_one(taken: int) -> None:
    chosen = ports.choose({"kafka": taken})
    assert chosen["kafka"] != taken
    assert ports.is_free(chosen["kafka"])


def test_a_listener_on_all_addresses_takes_the_port_too() -> None:
    with socket.socket() as server:
        server.bind(("", 0))
        server.listen()
        assert not ports.is_free(server.getsockname()[1])


def test_a_configured_port_is_used_or_rejected(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    free = ports.choose({})["kafka"]
    monkeypatch.setenv("MILLRACE_PORT_KAFKA", str(free))
    assert ports.choose({})["kafka"] == free
    monkeypatch.setenv("MILLRACE_PORT_KAFKA", str(taken))
    with raises(Code.PORT_IN_USE, taken, "MILLRACE_PORT_KAFKA"):
        ports.choose({})


@pytest.mark.parametrize("text", ["kafka", "0", "65536", "-1", "9092.0"])
def test_a_value_that_is_not_a_port_is_rejected(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_PORT_KAFKA", text)
    with raises(Code.INVALID_PORT, f"MILLRACE_PORT_KAFKA={text}"):
        ports.choose({})


def test_one_port_for_two_listeners_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    free = str(ports.choose({})["kafka"])
    monkeypatch.setenv("MILLRACE_PORT_KAFKA", free)
    monkeypatch.setenv("MILLRACE_PORT_POSTGRES", free)
    with raises(Code.PORT_IN_USE, free, "MILLRACE_PORT_POSTGRES"):
        ports.choose({})


def test_a_held_port_is_not_chosen_again_until_it_is_released() -> None:
    with ports.held({}) as first:
        with ports.held(first) as second:
            assert not set(first.values()) & set(second.values())
        assert ports.choose(first) == first
    with ports.held(first) as third:
        assert third == first


def test_a_shared_port_is_not_chosen_again_until_all_have_released_it() -> None:
    with ports.held({}) as first:
        supervisor = ports.Hold()
        supervisor.share(first.values())
    with ports.held(first) as second:
        assert not set(first.values()) & set(second.values())
    supervisor.close()
    with ports.held(first) as third:
        assert third == first


def test_the_listening_process_is_recognized(taken: int) -> None:
    assert ports.is_listening(os.getpid(), taken)
    assert not ports.is_listening(os.getppid(), taken)
    assert not ports.is_listening(os.getpid(), ports.choose({})["kafka"])


def test_a_chosen_port_is_not_one_of_outgoing_connections() -> None:
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    with ports.held({}) as first, ports.held({}) as second:
        assert max(*first.values(), *second.values()) < ephemeral
