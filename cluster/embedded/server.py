"""The server process: sockets on loopback, patches, lost jobs ended, REST and gRPC served until SIGTERM."""

from __future__ import annotations

import concurrent.futures
import logging
import os
import shutil
import signal
import socket
import threading
import time
import urllib.request
from http import HTTPStatus
from pathlib import Path
from typing import Any

import grpc
import uvicorn

from cluster.embedded import extensions, holder
from cluster.embedded.holder import StartError

HOST = "127.0.0.1"
READY_WITHIN_S = 60.0
GRACE_S = 2
#: Longer than any client keeps a pooled connection: a POST never meets one that was closed a moment ago.
KEEP_ALIVE_S = 620
#: gRPC's own default of 4 MB refuses appends that BigQuery takes.
GRPC_OPTIONS = [
    ("grpc.so_reuseport", 0),  # otherwise a second server shares a busy port in silence
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]

log = logging.getLogger("cluster.embedded")


def serve(data_dir: Path, *, project: str, port: int, grpc_port: int) -> None:
    """Serve the data dir until SIGTERM or SIGINT. Raises StartError when it cannot start."""
    data_dir = data_dir.absolute()
    data_dir.mkdir(parents=True, exist_ok=True)
    lock = holder.hold(data_dir)
    holder.withdraw(data_dir)
    try:
        _serve_held(data_dir, project, port, grpc_port)
    finally:
        holder.withdraw(data_dir)
        os.close(lock)


def _serve_held(data_dir: Path, project: str, port: int, grpc_port: int) -> None:
    listening = _bind(port, "--port")
    # gRPC says no more than "failed to bind": asked beforehand, the port gets its one line.
    _bind(grpc_port, "--grpc-port").close()
    rest_port: int = listening.getsockname()[1]
    extensions.use_private_home(data_dir / "home")
    app = _prepare(data_dir, project)
    rpc, rpc_port = _start_grpc(grpc_port)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )
    web = uvicorn.Server(config)

    def end(*_: Any) -> None:
        web.should_exit = True

    # uvicorn raises the signal again when it is done: ours must be harmless, or the clean-up never runs.
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    announcer = threading.Thread(
        target=_announce, args=(data_dir, project, rest_port, rpc_port, web), daemon=True
    )
    announcer.start()
    web.run(sockets=[listening])
    announcer.join(timeout=1)
    _shut_down(rpc)


def _prepare(data_dir: Path, project: str) -> Any:
    """Point local-bigquery at the data dir, patch it, open the database, and end the lost jobs."""
    from local_bigquery.settings import settings

    settings.data_dir, settings.default_project_id = data_dir, project
    settings.gcs_local_root = settings.gcs_local_root or data_dir / "gcs"
    from local_bigquery.app import app
    from local_bigquery.engine import database

    from cluster.embedded import jobs, marks, partitions, typed_bytes

    for patch in (marks, partitions, typed_bytes, jobs):
        patch.install()
    # Uploads are resumed by nobody: their sessions lived in the memory of the server before.
    shutil.rmtree(data_dir / "uploads", ignore_errors=True)
    database.connection().execute("SET GLOBAL autoinstall_known_extensions = false")
    if lost := jobs.end_lost():
        log.warning("ended %d jobs that a killed server had left unfinished", lost)
    return app


def _bind(port: int, flag: str) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        raise StartError(
            f"{HOST}:{port} cannot be bound ({error.strerror}); "
            f"free it, or give another {flag} (0 is any free port)"
        ) from None
    return listening


def _start_grpc(port: int) -> tuple[grpc.Server, int]:
    from local_bigquery.grpc.server import SERVICES

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=16), options=GRPC_OPTIONS)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(name, handlers) for name, handlers in SERVICES.items()]
    )
    bound: int = server.add_insecure_port(f"{HOST}:{port}")
    server.start()
    return server, bound


def _announce(data_dir: Path, project: str, port: int, grpc_port: int, web: uvicorn.Server) -> None:
    """Publish the address once a request that needs the database has been answered."""
    url = f"http://{HOST}:{port}/bigquery/v2/projects/{project}/datasets"
    until = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < until and not web.should_exit:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                if answer.status == HTTPStatus.OK:
                    holder.publish(data_dir, port, grpc_port)
                    return
        except OSError as error:
            log.debug("not ready: %s", error)
        time.sleep(0.05)
    if not web.should_exit:
        log.error("%s did not answer within %d s", url, READY_WITHIN_S)
        web.should_exit = True


def _shut_down(rpc: grpc.Server) -> None:
    """Stop what still runs, so that every job has a record that is DONE, and close the database."""
    from local_bigquery.engine import database
    from local_bigquery.jobs import runner

    from cluster.embedded import jobs

    stopped = rpc.stop(grace=1)
    jobs.stop_running()
    until = time.monotonic() + GRACE_S
    while runner._running and time.monotonic() < until:
        time.sleep(0.02)
    stopped.wait(timeout=GRACE_S)
    database.connection().close()
