"""The console's page and its files, read once, served packed, with the strictest policy a browser knows.

Every file lies under a path that holds the hash of all of them, so a browser keeps it for ever and never mixes two
versions. Only the page itself is asked for anew. Its one inline text, the import map, is allowed by its own hash.
"""

import base64
import gzip
import hashlib
import sys
from pathlib import Path

import msgspec
from aiohttp import web

from gateway.http_gate import absent

HERE = Path(__file__).with_name("console")
KINDS = {
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".LICENSE": "text/plain; charset=utf-8",
}
IMPORTS = {"preact": "vendor/preact.mjs", "preact/hooks": "vendor/hooks.mjs", "htm": "vendor/htm.mjs"}
HASH_CHARS = 16
CHECKOUT = Path(__file__).parent.parent / "ops" / "runbooks"  # beside the package in a checkout and in the sdist
RUNBOOKS = CHECKOUT if CHECKOUT.is_dir() else Path(sys.prefix) / "share" / "doc" / "tillgate" / "runbooks"


class File(msgspec.Struct, frozen=True):
    """One file as it goes out."""

    kind: str
    plain: bytes
    packed: bytes


class Files:
    """Everything under gateway/console, in memory: less than 200 KiB."""

    def __init__(self) -> None:
        found = {
            path.relative_to(HERE).as_posix(): path.read_bytes()
            for path in sorted(HERE.rglob("*"))
            if path.is_file() and path.suffix in KINDS
        }
        page = (HERE / "index.html").read_text()
        state = hashlib.sha256(page.encode())
        for name, content in found.items():
            state.update(name.encode() + b"\0" + content)
        self.version = state.hexdigest()[:HASH_CHARS]
        self._files = {
            name: File(KINDS[Path(name).suffix], content, gzip.compress(content, 9)) for name, content in found.items()
        }
        base = f"/console/static/{self.version}"
        imports = msgspec.json.encode({"imports": {name: f"{base}/{at}" for name, at in IMPORTS.items()}}).decode()
        self._page = page.replace("{{base}}", base).replace("{{imports}}", imports).encode()
        digest = base64.b64encode(hashlib.sha256(imports.encode()).digest()).decode()
        self.policy = "; ".join(
            (
                "default-src 'none'",
                f"script-src 'self' 'sha256-{digest}'",
                "style-src 'self'",
                "img-src 'self'",
                "connect-src 'self'",
                "base-uri 'none'",
                "form-action 'none'",
                "frame-ancestors 'none'",
                "require-trusted-types-for 'script'",
                "trusted-types 'none'",
            )
        )

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        return [
            web.get("/console", self.page),
            web.get("/console/", self.page),
            web.get("/console/static/{version}/{name:.+}", self.file),
            web.get("/console/runbooks/{name}", self.runbook),
        ]

    async def page(self, request: web.Request) -> web.Response:
        """GET /console."""
        response = web.Response(body=self._page, content_type="text/html", charset="utf-8")
        response.headers["Cache-Control"] = "no-cache"
        return self._guarded(response)

    async def file(self, request: web.Request) -> web.Response:
        """GET /console/static/{version}/{name}. Raises Problem 404, for another version's files too."""
        file = self._files.get(request.match_info["name"])
        if file is None or request.match_info["version"] != self.version:
            raise absent("file like this one: load the page anew")
        packed = "gzip" in request.headers.get("Accept-Encoding", "")
        headers = {"Content-Type": file.kind, "Cache-Control": "public, max-age=31536000, immutable"}
        headers["Vary"] = "Accept-Encoding"
        if packed:
            headers["Content-Encoding"] = "gzip"
        return self._guarded(web.Response(body=file.packed if packed else file.plain, headers=headers))

    async def runbook(self, request: web.Request) -> web.Response:
        """GET /console/runbooks/{name}: part of the product, not of a deployment, so it needs no token."""
        name = request.match_info["name"]
        if name not in runbooks():
            raise absent("runbook of this name here")
        body = (RUNBOOKS / f"{name}.md").read_bytes()
        return self._guarded(web.Response(body=body, headers={"Content-Type": "text/plain; charset=utf-8"}))

    def _guarded(self, response: web.Response) -> web.Response:
        response.headers["Content-Security-Policy"] = self.policy
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        return response


def runbooks() -> list[str]:
    """Names of the runbooks; none where the package was installed without its documents."""
    return sorted(path.stem for path in RUNBOOKS.glob("*.md"))
