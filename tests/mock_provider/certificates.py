"""An authority of the tests' own and a server certificate for 127.0.0.1 and localhost, made with the `openssl` program."""

from __future__ import annotations

import pathlib
import ssl
import subprocess

KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]


class Authority:
    """`file` is its certificate; `server` makes what a server needs."""

    def __init__(self, directory: pathlib.Path, name: str) -> None:
        self.directory = directory
        self.file = directory / f"{name}.pem"
        self._key = directory / f"{name}.key"
        self._run("req", "-x509", *KEY, "-subj", f"/CN={name}", "-keyout", self._key, "-out", self.file)

    def server(self, names: str = "IP:127.0.0.1,DNS:localhost", protocols: tuple[str, ...] = ("http/1.1",)) -> ssl.SSLContext:
        """A server's side of TLS, with a certificate for these names."""
        stem = self.directory / f"{self.file.stem}-server-{len(list(self.directory.iterdir()))}"
        key, request, certificate, names_file = (stem.with_suffix(end) for end in (".key", ".csr", ".pem", ".cnf"))
        names_file.write_text(f"subjectAltName={names}\n")
        self._run("req", "-new", *KEY[:-2], "-subj", "/CN=provider", "-keyout", key, "-out", request)
        self._run(
            *["x509", "-req", "-in", request, "-CA", self.file, "-CAkey", self._key, "-CAcreateserial"],
            *["-days", "2", "-extfile", names_file, "-out", certificate],
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        context.set_alpn_protocols(list(protocols))
        return context

    @staticmethod
    def _run(*arguments: object) -> None:
        done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
