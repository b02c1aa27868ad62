"""How ports are chosen."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded import ports
from include.errors import UserError


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as server:
        server.bind((ports.HOST, 0))
        server.listen()
        yield server.getsockname()[1]


def test_remembered_ports_are_kept() -> None:
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


def test_a_demanded_port_is_taken_or_refused(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    free = ports.choose({})["kafka"]
    monkeypatch.setenv("MILLRACE_PORT_KAFKA", str(free))
    assert ports.choose({})["kafka"] == free
    monkeypatch.setenv("MILLRACE_PORT_KAFKA", str(taken))
    with pytest.raises(UserError, match=f"Port {taken}, which MILLRACE_PORT_KAFKA asks for, is in use"):
        ports.choose({})


@pytest.mark.parametrize("text", ["kafka", "0", "65536", "-1", "9092.0"])
def test_what_is_no_port(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_PORT_KAFKA", text)
    with pytest.raises(UserError, match="is not a port"):
        ports.choose({})


def test_one_port_demanded_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    free = str(ports.choose({})["kafka"])
    monkeypatch.setenv("MILLRACE_PORT_KAFKA", free)
    monkeypatch.setenv("MILLRACE_PORT_POSTGRES", free)
    with pytest.raises(UserError, match="MILLRACE_PORT_POSTGRES asks for, is in use"):
        ports.choose({})


def test_a_held_port_is_nobody_elses_until_it_is_let_go() -> None:
    with ports.held({}) as first:
        with ports.held(first) as second:
            assert not set(first.values()) & set(second.values())
        assert ports.choose(first) == first
    with ports.held(first) as third:
        assert third == first


def test_what_is_shared_is_nobody_elses_until_all_have_let_go() -> None:
    with ports.held({}) as first:
        supervisor = ports.Hold()
        supervisor.share(first.values())
    with ports.held(first) as second:
        assert not set(first.values()) & set(second.values())
    supervisor.close()
    with ports.held(first) as third:
        assert third == first


def test_who_listens(taken: int) -> None:
    assert ports.is_listening(os.getpid(), taken)
    assert not ports.is_listening(os.getppid(), taken)
    assert not ports.is_listening(os.getpid(), ports.choose({})["kafka"])


def test_a_replacing_port_is_none_that_an_outgoing_connection_could_take() -> None:
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    with ports.held({}) as first, ports.held({}) as second:
        assert max(*first.values(), *second.values()) < ephemeral
