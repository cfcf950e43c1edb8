"""Of uvicorn, httptools, Starlette, FastAPI and httpcore: what the gateway is made of."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import httptools

from tests.support.borrowed.base import Borrowed, Name

HTTP = "uvicorn.protocols.http.httptools_impl"
PROTOCOL = f"{HTTP}:HttpToolsProtocol"
CYCLE = f"{HTTP}:RequestResponseCycle"
FORM = "starlette.formparsers:MultiPartParser"
CONNECTION = "httpcore._async.connection"


class Refusing:
    """Callbacks of a parser that stop it."""

    def on_message_begin(self) -> None:
        raise InterruptedError


def stops_at_an_error_in_a_callback(parser: Any) -> bool:
    try:
        parser(Refusing()).feed_data(b"GET / HTTP/1.1\r\n\r\n")
    except httptools.HttpParserError:
        return True
    return False


def has_swagger_ui(package: Any) -> bool:
    names = ("swagger-ui.css", "swagger-ui-bundle.js")
    return all((files(package) / "static" / name).is_file() for name in names)


BORROWED = [
    Borrowed(
        "uvicorn",
        "api/http_protocol.py",
        "a request that is refused is answered in its turn, by an application of our own",
        [
            Name(f"{PROTOCOL}.on_headers_complete", takes=""),
            Name(f"{PROTOCOL}.on_headers_complete", says="app = self.app"),
            Name(f"{PROTOCOL}.on_headers_complete", says="self.cycle = RequestResponseCycle("),
            Name("uvicorn.config:Config.load", says="self.http_protocol_class = self.http"),
        ],
    ),
    Borrowed(
        "uvicorn",
        "api/http_protocol.py",
        "a request's head is measured, also where it came with what was before it",
        [
            Name(f"{PROTOCOL}.on_message_begin", takes=""),
            Name(f"{PROTOCOL}.on_message_begin", says='self.url = b""'),
            Name(f"{PROTOCOL}.on_message_begin", says="self.headers = []"),
            Name(f"{PROTOCOL}.data_received", takes="data"),
        ],
    ),
    Borrowed(
        "uvicorn",
        "api/http_protocol.py",
        "it knows whether a request is being answered, and closes the connection afterwards",
        [
            Name(f"{PROTOCOL}.__init__", says="self.cycle: RequestResponseCycle = None"),
            Name(f"{PROTOCOL}.on_message_complete", takes=""),
            Name(f"{PROTOCOL}.on_response_complete", takes=""),
            Name(f"{PROTOCOL}.on_headers_complete", says="on_response=self.on_response_complete"),
            Name(f"{CYCLE}.send", says="self.response_complete = True"),
            Name(f"{CYCLE}.send", says="if not self.keep_alive: self.transport.close()"),
            Name(f"{CYCLE}.send", says="self.on_response()"),
        ],
    ),
    Borrowed(
        "uvicorn",
        "api/http_protocol.py",
        "requests that wait behind another one are bounded; each is held in memory",
        [Name(f"{PROTOCOL}.on_headers_complete", says="self.pipeline.appendleft(")],
    ),
    Borrowed(
        "httptools",
        "api/http_protocol.py",
        "an error in a callback stops the parser, and with it a flood of pipelined requests",
        [
            Name("httptools:HttpRequestParser", holds=stops_at_an_error_in_a_callback),
        ],
    ),
    Borrowed(
        "uvicorn",
        "api/http_protocol.py",
        "a client that is behind with reading is not counted as one that sends nothing",
        [
            Name(f"{PROTOCOL}.connection_made", takes="transport"),
            Name(f"{PROTOCOL}.connection_made", says="self.flow = FlowControl(transport)"),
            Name(f"{PROTOCOL}.pause_writing", takes=""),
            Name(f"{PROTOCOL}.resume_writing", takes=""),
            Name(
                "uvicorn.protocols.http.flow_control:FlowControl.__init__", says="self.write_paused"
            ),
        ],
    ),
    Borrowed(
        "uvicorn",
        "api/http_protocol.py",
        "what is not HTTP and what asks for a WebSocket is answered and closed as all else is",
        [
            Name(f"{PROTOCOL}.send_400_response", takes="msg"),
            Name(f"{PROTOCOL}.data_received", says="self.send_400_response(msg)"),
            Name(f"{PROTOCOL}.handle_websocket_upgrade", takes=""),
            Name(f"{PROTOCOL}.data_received", says="self.handle_websocket_upgrade()"),
        ],
    ),
    Borrowed(
        "uvicorn",
        "api/stop_signals.py",
        "the gateway's own handler comes before uvicorn's, which is set before the lifespan",
        [
            Name(
                "uvicorn.server:Server.capture_signals", says="signal.signal(sig, self.handle_exit)"
            ),
            Name(
                "uvicorn.server:Server.serve",
                says="with self.capture_signals(): await self._serve(",
            ),
        ],
    ),
    Borrowed(
        "starlette",
        "api/http_protocol.py",
        "a refusal is written without an application",
        [
            Name(
                "starlette.responses:Response.init_headers", says="self.raw_headers = raw_headers"
            ),
            Name("starlette.responses:Response.__init__", says="self.body = self.render(content)"),
        ],
    ),
    Borrowed(
        "starlette",
        "api/uploads.py",
        "a form stays in memory, and one that declares no image is refused before it is read",
        [
            Name(FORM, takes="headers stream max_files max_fields max_part_size ..."),
            Name(f"{FORM}.spool_max_size"),
            Name(f"{FORM}.parse", says='"on_headers_finished": self.on_headers_finished'),
            Name(f"{FORM}.on_headers_finished", takes=""),
            Name(f"{FORM}.on_headers_finished", says="max_size=self.spool_max_size"),
            Name(f"{FORM}.on_headers_finished", says="self._current_part.field_name = "),
            Name(f"{FORM}.on_headers_finished", says="self._current_part.file = UploadFile("),
        ],
    ),
    Borrowed(
        "starlette",
        "api/routes/page.py",
        "a browser asks for the page's modules each time, so that two versions never meet",
        [
            Name(
                "starlette.staticfiles:StaticFiles.get_response",
                says="self.file_response(full_path,",
            )
        ],
    ),
    Borrowed(
        "fastapi",
        "api/http_metrics.py",
        "requests are counted by the route that a router writes into the scope",
        [Name("fastapi.routing", says='scope["route"] = original_route')],
    ),
    Borrowed(
        "fastapi-offline",
        "api/docs.py",
        "Swagger UI is served from this package's files",
        [Name("fastapi_offline", holds=has_swagger_ui)],
    ),
    Borrowed(
        "httpcore",
        "api/webhook_client.py",
        "a webhook's connection is closed even if its TLS handshake is cancelled",
        [
            Name(f"{CONNECTION}:AsyncHTTPConnection._connect", says='Trace("connect_tcp"'),
            Name(f"{CONNECTION}:AsyncHTTPConnection._connect", says="trace.return_value = stream"),
            Name(f"{CONNECTION}:logger.name", holds="httpcore.connection".__eq__),
            Name("httpcore._trace:Trace.atrace", says='f"{self.prefix}.{name}"'),
        ],
    ),
    Borrowed(
        "httpcore",
        "api/webhook_client.py",
        "a webhook goes to the address that was checked, and TLS still asks for the host's name",
        [
            Name(
                f"{CONNECTION}:AsyncHTTPConnection._connect", says='"server_hostname": sni_hostname'
            )
        ],
    ),
]
