"""A web server on this machine that misbehaves as asked."""

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Serving:
    """What is served at every path, and how. parts: whether a Range is heeded; tag: the ETag, None = no mark of the
    version; cuts: the connection ends after so many bytes of the body, one entry an answer; refusals: status codes
    given first; length: whether Content-Length is sent; lies: a part is said to begin a byte later. asked: the Range
    headers that came, None where there was none."""

    content: bytes
    parts: bool = True
    tag: str | None = '"v1"'
    cuts: list[int] = field(default_factory=list)
    refusals: list[int] = field(default_factory=list)
    length: bool = True
    lies: bool = False
    asked: list[str | None] = field(default_factory=list)
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    """Answers GET by the server's `serving`."""

    serving: Serving

    def log_message(self, *_):
        pass

    def do_GET(self):
        serving = self.server.serving
        wanted = self.headers.get("Range")
        serving.asked.append(wanted)
        if serving.refusals:
            self.send_error(serving.refusals.pop(0))
            return
        first, total = 0, len(serving.content)
        if wanted and serving.parts and self.headers.get("If-Range") in (None, serving.tag):
            first = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if first >= total:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{total}")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first + serving.lies}-{total - 1}/{total}")
        else:
            self.send_response(200)
        if serving.tag:
            self.send_header("ETag", serving.tag)
        if serving.length:
            self.send_header("Content-Length", str(total - first))
        self.end_headers()
        body = serving.content[first:]
        self.wfile.write(body[: serving.cuts.pop(0)] if serving.cuts else body)


@contextmanager
def server(serving):
    """Serves for a while; `serving.url` is the address of a file."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.serving = serving
    serving.url = f"http://127.0.0.1:{http.server_port}/file.bin"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield serving
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
