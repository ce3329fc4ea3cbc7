"""Tills over HTTP: an integrator's requests through Locust's FastHttpSession, whose own rows are left out.

One attempt is one row of Locust's statistics, whatever it took; a request that was sent again would be a second one. So
responses are caught and never entered, which is how Locust is told nothing of them.
"""

from typing import Literal

import msgspec
from locust.contrib.fasthttp import FAILURE_EXCEPTIONS, FastHttpSession, FastResponse

from gateway.messages import Answer, Redeem, RedemptionRequest, ReversalRequest, Reverse, Verdict
from loadtest.locust_stream import LineDown, Question, Told

OK, NOT_FOUND, UNAVAILABLE = 200, 404, 503
_VERDICTS = {verdict.name.lower(): verdict for verdict in Verdict}
_encode = msgspec.json.Encoder().encode
_answer = msgspec.json.Decoder(Answer)


class HttpDoor:
    """All tills of one merchant, by one bearer token. Every call is one request, and waits for its answer."""

    def __init__(self, session: FastHttpSession, token: str) -> None:
        self._session = session
        self._headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
        }

    def redeem(self, terminal: int, scan: Redeem, question: Question) -> None:
        """Raises LineDown."""
        self._tell(question, "POST", "/v1/redemptions", _encode(_redemption(terminal, scan)))

    def preview(self, terminal: int, scan: Redeem, question: Question) -> None:
        """Raises LineDown."""
        self._tell(question, "POST", "/v1/redemptions/preview", _encode(_redemption(terminal, scan)))

    def reverse(self, terminal: int, reversal: Reverse, question: Question) -> None:
        """Raises LineDown."""
        original = reversal.original
        body = ReversalRequest(
            reversal_id=reversal.reversal_id.hex(),
            terminal=terminal,
            reversed_ms=reversal.reversed_ms,
            original=None if original is None else _redemption(terminal, original),
        )
        self._tell(question, "POST", f"/v1/redemptions/{reversal.redemption_id.hex()}/reversal", _encode(body))

    def look_up(self, redemption_id: bytes, question: Question) -> None:
        """What became of an id; one that nobody knows is told as NOT_FOUND. Raises LineDown."""
        self._tell(question, "GET", f"/v1/redemptions/{redemption_id.hex()}", None)

    def _tell(self, question: Question, method: Literal["GET", "POST"], path: str, body: bytes | None) -> None:
        question.sends += 1
        question.open += 1
        told: Told | None = None
        try:
            told = self._told(method, path, body)
        finally:
            if told is None:
                question.lost()
            else:
                question.take(told)

    def _told(self, method: str, path: str, body: bytes | None) -> Told:
        content = None if body is None else body.decode()
        response = self._session.request(method, path, data=content, headers=self._headers, catch_response=True)
        answered, text = response.status_code, response.content
        if not answered or text is None:
            raise LineDown(_why(response))
        if answered == NOT_FOUND:
            return Told(Verdict.NOT_FOUND, None)
        if answered == UNAVAILABLE:
            return Told(Verdict.UNRESOLVED, None)
        if answered != OK:
            raise LineDown(f"HTTP {answered}: {text[:300].decode(errors='replace')}")
        answer = _answer.decode(text)
        place = answer.position
        return Told(_VERDICTS[answer.verdict], None if place is None else (place.partition, place.seq, place.index))


def _redemption(terminal: int, scan: Redeem) -> RedemptionRequest:
    return RedemptionRequest(scan.redemption_id.hex(), scan.code, terminal, scan.scanned_ms)


def _why(response: FastResponse) -> str:
    try:
        response.raise_for_status()
    except FAILURE_EXCEPTIONS as error:
        return str(error) or type(error).__name__
    return "no answer"
