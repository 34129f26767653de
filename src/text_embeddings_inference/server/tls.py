"""The certificate of a server, which can be read anew while connections go on."""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

from ..errors import StartError
from ..settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """What the files held when they were read."""

    chain: bytes
    """The certificates, PEM."""
    key: bytes
    """The private key, PEM."""
    context: ssl.SSLContext
    """Serves with them."""


class Certificates:
    """The certificate chain and the private key that new connections are served with."""

    def __init__(self, chain: Path, key: Path) -> None:
        """chain, key: PEM files. Raises StartError where they can't be used."""
        self._files = chain, key
        try:
            self.current = self._read()
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise StartError(f"can't use the certificate {chain} with the key {key}") from error
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        """For the lifetime of a listener: each handshake goes on with what was read last."""
        self.context.sni_callback = self._choose

    @staticmethod
    def of(settings: Settings) -> Certificates | None:
        """Those that the settings name, if any. Raises StartError where they can't be used."""
        chain, key = settings.server.tls_cert, settings.server.tls_key
        return None if chain is None or key is None else Certificates(chain, key)

    def reload(self) -> None:
        """Reads the files again; what can't be used is logged, and the old ones stay."""
        try:
            self.current = self._read()
        except (OSError, ValueError) as error:
            logger.error("the old certificate stays, as %s with the key %s can't be used: %s", *self._files, error)
        else:
            logger.info("new connections are served with %s as it is now", self._files[0])

    def _read(self) -> KeyPair:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self._files, password=_no_password)
        chain, key = self._files
        return KeyPair(chain.read_bytes(), key.read_bytes(), context)

    def _choose(self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self.current.context


def _no_password() -> str:
    """In place of OpenSSL's own, which asks the terminal and waits."""
    raise ValueError("the key is encrypted, which is not supported (openssl pkey -in KEY -out DECRYPTED decrypts it)")
