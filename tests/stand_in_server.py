"""A stand-in for ``llama-server``: its help, its looks, and ways to misbehave.

python stand_in_server.py --port N [--spec-type T] [--behave loading|crash|ignore-term|slow]
"""

import argparse
import http.server
import json
import signal
import sys
import time
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


TIMINGS = {"prompt_n": 5, "prompt_ms": 5.0, "cache_n": 0, "predicted_n": 8, "predicted_ms": 14.0}
ANSWER = {"choices": [], "content": "a", "usage": {"input_tokens": 5, "output_tokens": 8}, "timings": TIMINGS}
TOKEN_S = 0.4 if options.behave == "slow" else 0.002


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(ANSWERS.get(self.path, {}))

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
        if asked.get("prompt") == "1":
            self._answer(ANSWERS["/completion"])
        elif asked.get("stream"):
            self._stream()
        else:
            time.sleep(8 * TOKEN_S)
            self._answer(ANSWER)

    def _answer(self, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(503 if options.behave == "loading" else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            for number in range(8):
                time.sleep(TOKEN_S)
                last = f"data: {json.dumps(ANSWER)}\n\ndata: [DONE]\n\n"
                event = (last if number == 7 else 'data: {"content":"a"}\n\n').encode()
                self.wfile.write(b"%x\r\n%b\r\n" % (len(event), event))
            self.wfile.write(b"0\r\n\r\n")
        except ConnectionError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """A client that left is no news."""


Server(("127.0.0.1", options.port), Handler).serve_forever()
