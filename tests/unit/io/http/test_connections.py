from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from factory.io.http.connections import Gate, LeadsInside
from factory.io.http.hosts import LOOPBACK, PRIVATE, PUBLIC


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def dial(server: socket.socket) -> socket.socket:
    return socket.create_connection(server.getsockname())


def test_the_connected_address_counts_not_the_resolved_one(listener: socket.socket) -> None:
    made: list[socket.socket] = []

    def rebound() -> socket.socket:
        made.append(dial(listener))
        return made[0]

    gate = Gate({}, frozenset({PUBLIC}), ())
    with pytest.raises(LeadsInside, match=r"outside\.invalid is 127\.0\.0\.1"):
        gate.dialled("outside.invalid", 80, rebound)
    assert made[0].fileno() == -1  # closed, and nothing was sent


def test_a_name_that_resolves_inside_is_not_even_dialled(listener: socket.socket) -> None:
    def never() -> socket.socket:
        pytest.fail("dialled")

    for allowed in ({PUBLIC}, {PUBLIC, PRIVATE}):
        with pytest.raises(LeadsInside):
            Gate({}, frozenset(allowed), ()).dialled("localhost", listener.getsockname()[1], never)


def test_a_host_that_was_public_once_cannot_become_private_later(listener: socket.socket) -> None:
    gate = Gate({("registry.invalid", 80): PUBLIC}, None, ())
    with pytest.raises(LeadsInside):
        gate.dialled("registry.invalid", 80, lambda: dial(listener))


def test_addresses_named_by_the_user_may_be_anywhere_and_are_remembered(listener: socket.socket) -> None:
    reached: dict[tuple[str, int], str] = {}
    gate = Gate(reached, None, ())
    for _ in range(2):
        gate.dialled("registry.invalid", 80, lambda: dial(listener)).close()
    assert reached == {("registry.invalid", 80): LOOPBACK}


def test_hosts_that_the_settings_allow_are_let_through(listener: socket.socket) -> None:
    gate = Gate({}, frozenset({PUBLIC}), {"storage.invalid"})
    gate.dialled("storage.invalid", 80, lambda: dial(listener)).close()
