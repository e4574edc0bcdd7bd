"""A local server that speaks the chat-completions protocol, fails when told to, and keeps its books."""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from medv_lab.evaluation.endpoint import Endpoint

GARBAGE = (
    '{"choices": [{"message": {"content": "Both answers are rather good."}}]}',
    '{"choices": [{"message": {"content": "11 0"}}]}',
    '{"choices": []}',
    "<html>not JSON</html>",
)


UNSUPPORTED = {"type": "invalid_request_error", "code": "unsupported_parameter"}
FILTERED = {"code": "content_filter", "message": "The prompt triggered the content management policy."}


@dataclass
class Books:
    """How the server behaves, and what it did.

    `fails` and `garbles` are shares of calls and of answers; `charges_once` is whether it honours idempotency
    keys. `made` counts answers by key, each of them paid for; `garbled` is how many of them were garbage.
    """

    fails: float = 0.0
    garbles: float = 0.0
    delay: float = 0.0
    hang: float = 1.2
    charges_once: bool = True
    content: str = "8 6\nThe second answer leaves out the side."
    usage: dict | None = None
    filtered: str = ""  # a call with this text is refused by the content filter
    refused: dict = field(default_factory=dict)  # parameter: the only value that it may have, None for none
    failure: tuple[int, ...] = (429, 500, 0)
    message: str = '{"error": {"message": "come back later"}}'
    retry_after: str | None = "0.02"
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    made: Counter = field(default_factory=Counter)
    bodies: dict[str, str] = field(default_factory=dict)
    failures: Counter = field(default_factory=Counter)
    requests: list[dict] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    url: str = ""
    guard: threading.Lock = field(default_factory=threading.Lock)

    def endpoint(self, **settings) -> Endpoint:
        defaults = {"model": "tiny-judge", "timeout": 1.0}
        return Endpoint(base_url=self.url, **{**defaults, **settings})

    def decide(self, key: str, request: dict) -> tuple[int, str]:
        """Status and body of the answer to a call; 0 is to hang until the client has gone."""
        with self.guard:
            self.requests.append(request)
            for name, only in self.refused.items():
                if request.get(name, only) != only:
                    return 400, json.dumps(
                        {"error": {**UNSUPPORTED, "param": name, "message": f"Unsupported: {name}"}}
                    )
            if self.filtered and self.filtered in json.dumps(request):
                return 400, json.dumps({"error": FILTERED})
            if self.rng.random() < self.fails:
                status = self.rng.choice(self.failure)
                self.failures[status] += 1
                return status, self.message
            if key not in self.bodies or not self.charges_once:
                self.made[key] += 1
                answer = {"choices": [{"message": {"content": self.content}}], "usage": self.usage}
                is_garbled = self.rng.random() < self.garbles
                self.bodies[key] = self.rng.choice(GARBAGE) if is_garbled else json.dumps(answer)
            return 200, self.bodies[key]

    @property
    def garbled(self) -> int:
        return sum(body in GARBAGE for body in self.bodies.values())


class Handler(BaseHTTPRequestHandler):
    books: Books

    def do_POST(self) -> None:
        books = self.books
        with books.guard:
            books.running += 1
            books.most_running = max(books.most_running, books.running)
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, body = books.decide(self.headers["Idempotency-Key"], request)
        time.sleep(books.delay if status else books.hang)
        with books.guard:
            books.running -= 1
        if not status:
            return
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if books.retry_after is not None:
            self.send_header("Retry-After", books.retry_after)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args) -> None:
        pass


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address) -> None:
        """A client that was killed, or gave up, breaks its connection: that is what is tested."""


@contextmanager
def serve(books: Books):
    """Run the server on a free port of the loopback interface."""
    with serve_handler(type("BookedHandler", (Handler,), {"books": books})) as books.url:
        yield books


@contextmanager
def serve_raw(respond: Callable[[BaseHTTPRequestHandler], None]):
    """Run a server that answers every call by a function, which writes to the connection itself; yields its URL."""

    def do_post(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        respond(self)
        self.close_connection = True

    with serve_handler(type("RawHandler", (Handler,), {"do_POST": do_post})) as url:
        yield url


@contextmanager
def serve_handler(handler: type[BaseHTTPRequestHandler]):
    server = QuietServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
