"""Puts TLS in front of a server that has none: a throwaway authority, a proxy that ends TLS."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

from tests.support.stack import free_port

HOST = "localhost"


class Authority:
    """A certificate authority in a folder, and one certificate for `localhost` and 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.ca = folder / "ca.pem"
        self.certificate = folder / "server.pem"
        self.key = folder / "server.key"
        ca_key = folder / "ca.key"
        new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        _openssl(
            *(*new, "-x509", "-days", "2", "-subj", "/CN=throwaway authority"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
            *("-keyout", str(ca_key), "-out", str(self.ca)),
        )
        # In steps: `req -CA` came only with OpenSSL 3.
        request, extensions = folder / "server.csr", folder / "server.ext"
        extensions.write_text(
            f"subjectAltName=DNS:{HOST},IP:127.0.0.1\nbasicConstraints=CA:FALSE\n"
        )
        _openssl(*new, "-subj", f"/CN={HOST}", "-keyout", str(self.key), "-out", str(request))
        _openssl(
            *("x509", "-req", "-days", "2", "-in", str(request), "-extfile", str(extensions)),
            *("-CA", str(self.ca), "-CAkey", str(ca_key), "-CAcreateserial"),
            *("-out", str(self.certificate)),
        )

    def server_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, self.key)
        return context


def have_openssl() -> bool:
    return shutil.which("openssl") is not None


class TlsProxy:
    """`with TlsProxy(authority, port) as proxy`: TLS on `proxy.port`, plain TCP to `port` behind.

    `handshakes` counts connections that agreed on TLS, `refused` those that did not.
    """

    def __init__(self, authority: Authority, target_port: int) -> None:
        self.port = free_port()
        self.handshakes = 0
        self._context = authority.server_context()
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._listening = threading.Event()

    def __enter__(self) -> TlsProxy:
        self._thread.start()
        assert self._listening.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(
            self._connect, "127.0.0.1", self.port, ssl=self._context
        )
        self._listening.set()
        await self._stop.wait()
        server.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.handshakes += 1
        try:
            inner = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.close()
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(_pump(reader, inner[1]))
            group.create_task(_pump(inner[0], writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, ssl.SSLError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    with suppress(OSError, ssl.SSLError):
        writer.close()


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=30)  # noqa: S607
