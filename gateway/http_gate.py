"""What every HTTP route begins and ends with: who asks, the body as a value, errors as problem+json (RFC 9457)."""

import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import NoReturn, TypeVar

import msgspec
from aiohttp import web

from eventstore.follower import FollowerEnded
from eventstore.log import LogDamaged, LogFailed, LogLost
from gateway.auth import Asker, Auth, Stranger
from gateway.control import Control, ControlBusy
from gateway.directory import Rejected
from gateway.pipe import ArbiterLost, ArbiterRefused
from gateway.roles import ROLES, Action

BODY_BYTES_MAX = 64 * 1024  # a code of 4,296 characters, every one escaped, takes 26 KiB; the rest is small
BEARERS_KEPT_MAX = 4096  # headers whose holder is remembered: 10 times the integrators of a large city
RETRY_AFTER_S = "1"  # a recovery takes less than that; a till that waits longer loses its queue
JSON = "application/json"
PROBLEM_JSON = "application/problem+json"
UNSURE = (ArbiterLost, ArbiterRefused, ControlBusy, LogFailed, LogDamaged, LogLost, FollowerEnded)
"""Why a request may be left without any answer but: ask again."""

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_place = re.compile(r"(.*) - at `\$\.?(.*)`", re.DOTALL).fullmatch
_named = re.compile(r"Object (?:contains unknown|missing required) field `(.*)`", re.DOTALL).fullmatch


class Problem(Exception):
    """A request that is answered with a problem: `code` is the HTTP one, `field` the place that is wrong, if one is."""

    def __init__(self, code: HTTPStatus, detail: str, field: str | None = None) -> None:
        super().__init__(detail)
        self.code, self.detail, self.field = code, detail, field


class ProblemBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a request was not carried out (RFC 9457); `field` is the place that is wrong, if one is."""

    type: str  # "about:blank": the title says all
    title: str
    detail: str
    field: str | None = None


def bad(field: str, why: str) -> Problem:
    """400: this field is wrong, and why."""
    return Problem(HTTPStatus.BAD_REQUEST, why, field)


def absent(what: str) -> Problem:
    """404, the same for what does not exist and for what belongs to somebody else."""
    return Problem(HTTPStatus.NOT_FOUND, f"there is no {what}")


def unknown_yet(why: str) -> Problem:
    """503: nothing is known; the same request may be sent again."""
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, f"{why}: send the same request again")


def unsure() -> Problem:
    """What one of UNSURE is answered with."""
    return unknown_yet("the gateway could not find out")


def allowed(outcome: T | Rejected) -> T:
    """The outcome. Raises Problem 409 for what was rejected: well formed, but against what is so."""
    if isinstance(outcome, Rejected):
        raise Problem(HTTPStatus.CONFLICT, outcome.why, outcome.field)
    return outcome


# --- errors ---


def problems(handler: Handler) -> Handler:
    """The handler with every error as problem+json. Not a middleware: aiohttp's cost a request 3 % (measured)."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except Problem as problem:
            return problem_response(problem.code, problem.detail, problem.field)
        except UNSURE:
            return problem_response(unsure().code, unsure().detail)
        except web.HTTPException as error:  # aiohttp's own, e.g. of a WebSocket handshake
            return problem_response(HTTPStatus(error.status), error.reason)
        except web.RequestPayloadError:
            return problem_response(HTTPStatus.BAD_REQUEST, "the body broke off or is not encoded as its headers say")

    return answer


async def no_route(request: web.Request) -> web.StreamResponse:
    """The route behind all others: 404, or 405 with the methods this path has."""
    offered: set[str] = set()
    for resource in request.app.router.resources():
        _, methods = await resource.resolve(request)
        offered |= methods
    offered.discard("*")  # this very route
    if not offered:
        return problem_response(HTTPStatus.NOT_FOUND, "there is nothing at this path")
    allow = ", ".join(sorted(offered))
    response = problem_response(HTTPStatus.METHOD_NOT_ALLOWED, f"{request.method} is not offered here, only {allow}")
    response.headers["Allow"] = allow
    return response


def problem_bytes(problem: Problem) -> bytes:
    """One problem as a body."""
    return msgspec.json.encode(ProblemBody("about:blank", problem.code.phrase, problem.detail, problem.field))


def problem_response(code: HTTPStatus, detail: str, field: str | None = None) -> web.Response:
    """One problem as a response."""
    body = problem_bytes(Problem(code, detail, field))
    response = web.Response(body=body, status=code, content_type=PROBLEM_JSON)
    if code is HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = RETRY_AFTER_S
    if code is HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = 'Bearer realm="tillgate"'
    return response


# --- bodies ---


async def read_body(request: web.Request, decoder: msgspec.json.Decoder[T], bytes_max: int = BODY_BYTES_MAX) -> T:
    """The JSON body as a value. Raises Problem: 415, 413, or 400 with the place in `field`."""
    given = request.headers.get("Content-Type", "")
    if given != JSON and request.content_type != JSON:
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send the body as {JSON}")
    content = request.content
    body = content.read_nowait() if content.is_eof() else await content.readany()  # mostly it is all there by now
    while not content.at_eof():
        if len(body) > bytes_max:
            break
        body += await content.readany()
    if len(body) > bytes_max:
        raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has more than {bytes_max} bytes")
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        refuse_body(error)


def refuse_body(error: Exception) -> NoReturn:
    """Raises the Problem of a body that could not be decoded, its place (`offer.stores[2]`) in `field`."""
    if isinstance(error, RecursionError):
        raise Problem(HTTPStatus.BAD_REQUEST, "the body is nested too deeply") from None
    if not isinstance(error, msgspec.ValidationError):
        raise Problem(HTTPStatus.BAD_REQUEST, "the body is not JSON in UTF-8") from None
    placed = _place(str(error))
    why, inside = (placed[1], placed[2]) if placed else (str(error), "")
    named = _named(why)
    path = ".".join(filter(None, (inside, named[1]))) if named else inside
    raise Problem(HTTPStatus.BAD_REQUEST, why, path or None) from None


def json_response(body: object) -> web.Response:
    """200 with a JSON body."""
    return web.Response(body=msgspec.json.encode(body), content_type=JSON)


def whole_number(request: web.Request, name: str, low: int, high: int, default: int) -> int:
    """A number from the query. Raises Problem 400."""
    given = request.query.get(name)
    if given is None:
        return default
    if not (given.isascii() and given.isdigit() and len(given) <= 20 and low <= int(given) <= high):
        raise bad(name, f"must be a whole number from {low} to {high}")
    return int(given)


def path_number(request: web.Request, name: str, high: int) -> int:
    """A number from the path, 1 to `high`. Raises Problem 404."""
    given = request.match_info[name]
    if not (given.isascii() and given.isdigit() and len(given) <= 10 and 1 <= int(given) <= high):
        raise absent(f"{name} like this one: it is a whole number")
    return int(given)


# --- who asks ---


class Gate:
    """Tells who asks, from the bearer token, as of what the control partition says now."""

    def __init__(self, control: Control, auth: Auth) -> None:
        self._control, self._auth = control, auth
        self._known: dict[str, Asker] = {}
        self._known_seq = -1

    def asker(self, request: web.Request, *actions: Action, stale_ok: bool = False) -> Asker:
        """Who asks, if their role may do one of these at all. Raises Problem 401, 403, 503.

        `stale_ok`: what follows tells by itself that nothing is known when the control head is not confirmed.
        """
        asker = self._asker(request.headers.get("Authorization"))
        if not stale_ok and not self._control.is_confirmed():
            raise unknown_yet("whether this token is still good is not known")
        if ROLES[asker.principal.role].actions.isdisjoint(actions):
            what = actions[0].value.replace("_", " ")
            raise Problem(HTTPStatus.FORBIDDEN, f"a token of the role {asker.principal.role} may not do this ({what})")
        return asker

    async def read(
        self, request: web.Request, decoder: msgspec.json.Decoder[T], action: Action, bytes_max: int = BODY_BYTES_MAX
    ) -> tuple[Asker, T]:
        """Who asks, and the body. Asked again when the body is there: it may have taken longer than a revocation."""
        self.asker(request, action)
        body = await read_body(request, decoder, bytes_max)
        return self.asker(request, action), body

    def _asker(self, header: str | None) -> Asker:
        if self._control.directory.control_seq != self._known_seq or len(self._known) >= BEARERS_KEPT_MAX:
            self._known.clear()
            self._known_seq = self._control.directory.control_seq
        asker = self._known.get(header or "")
        if asker is None:
            found = self._auth.bearer(header)
            if isinstance(found, Stranger):
                if not self._control.is_confirmed():
                    raise unknown_yet("whether this token is good is not known")
                raise Problem(HTTPStatus.UNAUTHORIZED, found.why)
            asker = self._known[header or ""] = found
        return asker
