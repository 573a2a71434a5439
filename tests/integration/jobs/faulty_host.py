"""A host between the jobs and the simulator that changes answers, as the real one does at times."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

Change = Callable[[httpx.Response], httpx.Response]


@dataclass
class FaultyHost:
    """Forwards requests; ``changes`` maps a part of the path and query to what it does."""

    url: str
    changes: dict[str, Change] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@contextmanager
def faulty_host(target: str) -> Iterator[FaultyHost]:
    """A host in front of ``target``, closed at the end."""
    client = httpx.Client(base_url=target, timeout=20, trust_env=False)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            host.asked.append(self.path)
            headers = {k: v for k, v in self.headers.items() if k.lower().startswith("x-mbx")}
            answer = client.get(self.path, headers=headers)
            for part, change in list(host.changes.items()):
                if part in self.path:
                    answer = change(answer)
            body = answer.content
            self.send_response(answer.status_code)
            for name, value in answer.headers.items():
                if name.lower() not in {
                    "content-length",
                    "transfer-encoding",
                    "connection",
                    "date",
                }:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet: pytest shows what matters."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    host = FaultyHost(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield host
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
        client.close()
