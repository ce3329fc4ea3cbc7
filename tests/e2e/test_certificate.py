"""A certificate that is renewed under a gateway that serves."""

import ssl
from pathlib import Path

import msgspec
from stream_world import config_for, site
from tls_files import write_tls_files

from gateway.serving import _Live
from gateway.settings import ServerConfig


async def test_a_certificate_renewed_halfway_changes_nothing_and_a_whole_one_is_taken(tmp_path: Path) -> None:
    cert, key = write_tls_files(tmp_path)
    (tmp_path / "next").mkdir()
    next_cert, next_key = write_tls_files(tmp_path / "next")
    old, new = (ssl.create_default_context(cafile=str(file)) for file in (cert, next_cert))
    server = ServerConfig(port=0, tls_cert=str(cert), tls_key=str(key))
    said: list[str] = []
    async with site(tmp_path / "data", server=server) as here:
        config = msgspec.structs.replace(config_for(tmp_path / "data"), server=server)
        live = _Live(here.gateway, config, said.append, lambda: config)
        url = here.gateway.url.replace("127.0.0.1", "localhost") + "/livez"

        async def is_served(trusted: ssl.SSLContext) -> bool:
            async with here.session.get(url, ssl=trusted, headers={"Connection": "close"}) as response:
                return response.status == 200

        assert await is_served(old)
        cert.write_bytes(next_cert.read_bytes())
        live.reload()
        assert "nothing was reloaded" in said.pop()
        assert await is_served(old), "the certificate in use is untouched"
        key.write_bytes(next_key.read_bytes())
        live.reload()
        assert "certificate" in said.pop()
        assert await is_served(new)
