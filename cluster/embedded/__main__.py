"""`python -m cluster.embedded`: the embedded BigQuery in the foreground."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path


def main() -> int:
    """Read the arguments and serve; a reason not to start is one line on stderr and exit code 1."""
    parser = argparse.ArgumentParser("python -m cluster.embedded", description="The embedded BigQuery")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0, help="REST; 0 is any free port")
    parser.add_argument("--grpc-port", type=int, default=0, help="Storage Read and Write; 0 is any free port")
    parser.add_argument("--project", default="local")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        from cluster.embedded.holder import StartError
        from cluster.embedded.server import serve
    except ModuleNotFoundError as error:
        sys.stderr.write(f"{error.name} is not installed; install Manta with its extra 'local'\n")
        return 1
    try:
        serve(given.data_dir, project=given.project, port=given.port, grpc_port=given.grpc_port)
    except (StartError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: the interpreter would wait for every job thread that does not end.
    os._exit(code)
