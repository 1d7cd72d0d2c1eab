from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from google.cloud import bigquery

from tests.integration.embedded.embedded_server import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("embedded") / "bq")
    yield running
    running.end()


@pytest.fixture(scope="module")
def client(server: Server) -> bigquery.Client:
    made: bigquery.Client = server.client()
    made.create_dataset("shop")
    return made


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start servers, one after the other, on a data dir that outlives them."""
    started: list[Server] = []

    def start(*arguments: str) -> Server:
        started.append(Server(tmp_path / "bq", *arguments))
        return started[-1]

    yield start
    for one in started:
        one.end(signal.SIGKILL)
