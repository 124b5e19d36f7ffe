"""What a host's refusal or failure means to us: the only seam that knows upstream statuses and their words. Pure.

Two audiences: `message` is our own sentence (for a 400 the host's, shortened and cleaned, as it is about the caller's
request); `detail` names host, status and the cleaned upstream text, for the log. Retrying is decided here too: a
`Verdict` says what a fault means for the next try and for the host's circuit breaker.
"""

from __future__ import annotations

import math
import re
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from convene.errors import BadRequest, ConveneError, Malformed, RateLimited, Rejected, TimedOut, Unavailable
from convene.http import base as http

if TYPE_CHECKING:
    from collections.abc import Mapping

MESSAGE_CHARS_MAX = 500
RETRY_AFTER_MAX_S = 86_400.0

OPENAI_CODES = frozenset(
    {
        "context_length_exceeded", "content_filter", "content_policy_violation", "image_too_large", "invalid_base64",
        "invalid_function_parameters", "invalid_image", "invalid_image_format", "invalid_image_url", "invalid_type",
        "invalid_value", "missing_required_parameter", "string_above_max_length", "array_above_max_length",
        "integer_above_max_value", "integer_below_min_value", "decimal_above_max_value", "decimal_below_min_value",
        "unknown_parameter", "unsupported_parameter", "unsupported_value", "unsupported_image_media_type",
    }
)  # fmt: skip
"""Words of OpenAI's for what is wrong with a request; others are not handed on."""

_CONTEXT_TYPES = frozenset({"exceed_context_size_error", "context_length_exceeded"})
# vLLM and SGLang say by no field that a prompt is too long, and clients act on that code: only the sentence tells.
_CONTEXT_WORDS = re.compile(r"(?i)maximum context length|context length exceeded|longer than the model's context")

_KEY_SHAPES = re.compile(
    r"""(?ix)
    \bbearer\s+[\w.~+/=-]{8,} | \bbasic\s+[\w+/=]{16,}       # authorization values
    | \b(?:sk|pk|rk|ak|gsk|hf|xai|nvapi|asi1|cnv)[-_][\w.*-]{6,}   # keys by their prefix, masked ones too
    | \b(?:api|key|token)[-_](?=[\w-]*\d)[\w-]{12,}
    | \bAIza[\w-]{10,} | \beyJ[\w-]{10,}\.[\w-]+(?:\.[\w-]+)?   # Google's keys, JSON web tokens
    | (?<=://)[^/\s@]+@                                       # user and password of a URL
    | \b(?=[\w+/=]*\d)(?=[\w+/=]*[a-z])[\w+/=]{32,}           # any other long mixture
    """
)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f\u2028\u2029\x85]+")

Next = Literal["end", "again", "elsewhere"]


class Verdict(NamedTuple):
    """A fault, what the next try may be (`elsewhere`: another host only), and whether the host is to blame."""

    fault: ConveneError
    next: Next
    blame: bool


class UpstreamWords(NamedTuple):
    """What an error body says; empty strings where it says nothing."""

    message: str = ""
    code: str = ""
    kind: str = ""
    param: str | None = None


def clean(text: str, *secrets: str) -> str:
    """Return `text` on one line, at most 500 characters, without `secrets` and whatever looks like a key."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "[removed]")
    # cut generously first: the patterns below need not see megabytes
    text = _CONTROLS.sub(" ", text[: 8 * MESSAGE_CHARS_MAX])
    text = _KEY_SHAPES.sub("[removed]", text).strip()
    return text if len(text) <= MESSAGE_CHARS_MAX else text[: MESSAGE_CHARS_MAX - 1] + "…"


def read_words(body: bytes) -> UpstreamWords:
    """Return what an error body says, in any of the forms that hosts use; never raises."""
    try:
        found: object = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return UpstreamWords()
    if isinstance(found, list) and found:
        found = found[0]  # Google wraps its error in a list
    return words_of(found)


def words_of(found: object) -> UpstreamWords:
    """Return what a decoded error says: `{"error": {...} | text}`, `{"message"}` or `{"detail"}`."""
    if isinstance(found, str):
        return UpstreamWords(found)
    if not isinstance(found, dict):
        return UpstreamWords()
    error = found.get("error")
    if isinstance(error, dict):
        found = error
    elif isinstance(error, str):
        return UpstreamWords(error)
    message = found.get("message") or found.get("msg") or found.get("detail")
    if isinstance(message, list) and message and isinstance(message[0], dict):
        message = message[0].get("msg")  # FastAPI's list of validation faults
    param = found.get("param")
    return UpstreamWords(
        message if isinstance(message, str) else "",
        _word(found.get("code")),
        _word(found.get("type")),
        param[:100] if isinstance(param, str) else None,
    )


def _word(value: object) -> str:
    return str(value) if isinstance(value, str | int) else ""


class Blamed(NamedTuple):
    """Whose fault it is: the upstream's configured name, the model's there, the host asked, the key that was sent."""

    upstream: str
    model: str
    host: str
    api_key: str = ""

    def detail(self, what: str, words: str = "") -> str:
        """Return the line for the log."""
        said = clean(words, self.api_key)
        return f"{self.upstream} at {clean(self.host)}: {what}" + (f": {said}" if said else "")


def judge_status(status: int, headers: Mapping[str, str], body: bytes, blamed: Blamed, now: float) -> Verdict:
    """Return what a response with an error status means. `now` is Unix time, for dates in `retry-after`."""
    words = read_words(body)
    text = words.message or body[: 8 * MESSAGE_CHARS_MAX].decode("utf-8", "replace")
    detail = blamed.detail(f"status {status}", text)
    return judge_code(status, words, blamed, detail, read_retry_after(headers, now))


def judge_code(code: int, words: UpstreamWords, blamed: Blamed, detail: str, retry_after_s: float | None) -> Verdict:
    """Return what an error with an HTTP-like code means, wherever the code stood."""
    if code in (400, 413, 422):
        return Verdict(_bad_request(code, words, blamed, detail), "end", blame=False)
    if code in (408, 429):
        if "insufficient_quota" in (words.code, words.kind):
            return Verdict(_rejected(blamed, "its quota there is spent", detail), "elsewhere", blame=False)
        message = f"The upstream '{blamed.upstream}' is asking for fewer requests; try again later."
        fault = RateLimited(message, detail=detail, retry_after_s=retry_after_s)
        return Verdict(fault, "elsewhere", blame=False)
    if code == 404:  # noqa: PLR2004 - statuses are plainest as numbers
        message = f"The upstream '{blamed.upstream}' does not know the model; the operator should check its name there."
        return Verdict(Unavailable(message, detail=detail), "end", blame=False)
    if code >= 500:  # noqa: PLR2004 - as above
        message = f"The upstream '{blamed.upstream}' failed with status {code}; try again."
        again: Next = "again" if code in (502, 503, 504, 529) else "end"
        return Verdict(Unavailable(message, detail=detail, retry_after_s=retry_after_s), again, blame=True)
    if code >= 400:  # noqa: PLR2004 - as above
        why = {401: "it does not accept our key", 402: "its quota there is spent", 403: "it does not allow the model"}
        return Verdict(_rejected(blamed, why.get(code, f"status {code}"), detail), "end", blame=False)
    message = f"The upstream '{blamed.upstream}' gave no chat reply; the operator should check its address."
    return Verdict(Malformed(message, detail=detail), "end", blame=True)


def _bad_request(status: int, words: UpstreamWords, blamed: Blamed, detail: str) -> BadRequest:
    code = words.code if words.code in OPENAI_CODES else None
    if words.kind in _CONTEXT_TYPES or _CONTEXT_WORDS.search(words.message):
        code = "context_length_exceeded"
    fallback = "The model's host found the request too large." if status == 413 else "The model's host refused it."  # noqa: PLR2004
    return BadRequest(clean(words.message, blamed.api_key) or fallback, code=code, param=words.param, detail=detail)


def _rejected(blamed: Blamed, why: str, detail: str) -> Rejected:
    message = f"The upstream '{blamed.upstream}' turned this server away ({why}); the operator must mend it."
    return Rejected(message, detail=detail)


def read_retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the wait that `retry-after-ms` or `retry-after` (seconds or date) asks for, in seconds (OSDK-05)."""
    for name, per_second in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        text = headers.get(name)
        if not text:
            continue
        try:
            wait_s = float(text) / per_second
        except ValueError:
            try:
                wait_s = parsedate_to_datetime(text).timestamp() - now
            except (ValueError, OverflowError):
                continue
        if math.isfinite(wait_s):
            return min(max(0.0, wait_s), RETRY_AFTER_MAX_S)
    return None


def judge_error_frame(found: object, blamed: Blamed, *, begun: bool) -> Verdict:
    """Return what an error inside a 200 answer means; before the first event its code counts like a status."""
    words = words_of(found)
    detail = blamed.detail("an error inside the answer", words.message or str(found)[:MESSAGE_CHARS_MAX])
    if not begun and words.code.isdecimal() and len(words.code) == 3:  # noqa: PLR2004 - three digits make a status
        code = int(words.code)
        if 400 <= code < 600:  # noqa: PLR2004 - the error statuses
            return judge_code(code, words, blamed, detail, None)
    if not begun and (words.code in OPENAI_CODES or words.kind in _CONTEXT_TYPES):
        return Verdict(_bad_request(400, words, blamed, detail), "end", blame=False)
    when = "broke off in mid-answer" if begun else "failed before it answered"
    message = f"The upstream '{blamed.upstream}' {when}; try again."
    return Verdict(Unavailable(message, detail=detail), "end" if begun else "again", blame=True)


def judge_transport(error: http.HttpError, blamed: Blamed, *, begun: bool) -> Verdict:
    """Return what a failure of the connection means; `begun`: events of the answer were already given out."""
    detail = blamed.detail(type(error).__name__, str(error))
    name = f"The upstream '{blamed.upstream}'"
    match error:
        case http.ConnectFailed():
            return Verdict(Unavailable(f"{name} cannot be reached; try again.", detail=detail), "again", blame=True)
        case http.PoolTimedOut():  # our own pool is full: the host is not to blame, and another wait helps nobody
            message = f"{name} is busy: no connection became free; try again."
            return Verdict(Unavailable(message, detail=detail), "end", blame=False)
        case http.TimedOut():
            message = f"{name} did not answer in time; try again or ask for less."
            return Verdict(TimedOut(message, detail=detail), "end", blame=error.phase != "total")
        case http.Disconnected() if not error.received and not begun:
            message = f"{name} closed the connection without an answer; try again."
            return Verdict(Unavailable(message, detail=detail), "again", blame=True)
        case http.Disconnected():
            message = f"{name} broke off in mid-answer; try again."
            return Verdict(Malformed(message, detail=detail), "end", blame=True)
        case _:
            message = f"{name} answered with broken HTTP; try again."
            return Verdict(Malformed(message, detail=detail), "end", blame=True)
