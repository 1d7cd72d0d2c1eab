"""`python -m sandbox`: every provider until SIGTERM, one line of JSON when they listen."""

from __future__ import annotations

import argparse
import json
import signal
from datetime import datetime
from threading import Event

from sandbox.server import LOOPBACK, running
from sandbox.styles import STYLES


def main() -> int:
    """Start the sandbox, say where it listens, run until asked to stop."""
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__)
    parser.add_argument("--host", default=LOOPBACK)
    parser.add_argument("--openai-port", type=int, default=0, help="0 takes a free port")
    parser.add_argument("--anthropic-port", type=int, default=0, help="0 takes a free port")
    parser.add_argument("--gcp-port", type=int, default=0, help="0 takes a free port")
    parser.add_argument("--rest-port", type=int, default=0, help="0 takes a free port")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the number of rows")
    parser.add_argument("--style", choices=STYLES, default="full")
    parser.add_argument("--now", type=datetime.fromisoformat, help="a fixed clock, RFC 3339 with zone")
    wanted = parser.parse_args()
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with running(**vars(wanted)) as sandbox:
        urls = {
            "openai": sandbox.openai_url,
            "anthropic": sandbox.anthropic_url,
            "control": sandbox.control_url,
            "gcp": sandbox.gcp_url,
            "rest": sandbox.rest_url,
        }
        print(json.dumps(urls), flush=True)
        stop.wait()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
