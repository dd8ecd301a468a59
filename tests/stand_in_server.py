"""A stand-in for ``llama-server``: its help, its looks, and ways to misbehave.

python stand_in_server.py --port N [--spec-type T] [--behave loading|crash|ignore-term]
"""

import argparse
import http.server
import json
import signal
import sys
from typing import Any

parser = argparse.ArgumentParser()
parser.add_argument("-m", "--model", default="m")
parser.add_argument("--port", type=int, default=0)
parser.add_argument("--draft-max", type=int)
parser.add_argument("--spec-type", default="none")
parser.add_argument("--behave", default="well")
options = parser.parse_args()
if options.behave == "crash":
    print("cannot load the model: it is a teapot", file=sys.stderr)
    sys.exit(3)
if options.behave == "ignore-term":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
ANSWERS: dict[str, Any] = {
    "/props": {"default_generation_settings": {"n_ctx": 512}, "total_slots": 3, "build_info": "b1"},
    "/v1/models": {"data": [{"id": options.model, "aliases": ["alias"]}]},
    "/completion": {"generation_settings": {"speculative.types": options.spec_type}},
}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body = json.dumps(ANSWERS.get(self.path, {})).encode()
        self.send_response(503 if options.behave == "loading" else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", options.port), Handler).serve_forever()
