"""A chat endpoint on this machine that answers, or fails, as a test says; it keeps what it was asked."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "tiny-vlm"


def completion(text: Any, model: str = MODEL, finish: Any = "stop", **message: Any) -> dict[str, Any]:
    """Gives the body of a chat completion."""
    said = {"role": "assistant", "content": text, **message}
    return {
        "id": "1", "object": "chat.completion", "created": 1, "model": model,
        "choices": [{"index": 0, "message": said, "finish_reason": finish}],
    }  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append(asked)
            self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
            number = len(self.server.asked)
        given = self.server.reply(asked, number)
        given = given if isinstance(given, tuple) else (200, given)
        status, body, headers = (*given, {})[:3]
        if body == "hang":
            time.sleep(1.5)
            return
        if body == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            for one in (self.rfile, self.wfile, self.connection):  # the last one to be closed sends the reset
                one.close()
            self.close_connection = True
            return
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": len(data),
            **headers,
        }.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass

    def handle(self) -> None:
        with suppress(OSError, ValueError):
            super().handle()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@contextmanager
def serving(reply: Callable[[dict[str, Any], int], Any]):
    """Serves ``reply(request, number)``: a body, (status, body), (status, body, headers), "hang" or "reset"."""
    server: Any = Server(("127.0.0.1", 0), Handler)
    server.reply, server.asked, server.headers, server.lock = reply, [], [], threading.Lock()
    server.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
