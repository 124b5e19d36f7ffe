"""The error tree: what can go wrong, said for three audiences. Knows nothing of HTTP.

    ConveneError  (code, message for the client, param, detail for the log, retry_after_s)
      ClientFault      BadRequest  Unauthorized  Forbidden  NotFound  Conflict  TooLarge
      Refused          RateLimited  OverBudget  Busy
      UpstreamFault    Unavailable  TimedOut  Rejected  Malformed
      StoreFault       (the store cannot be used now)
      ToolFault        Retry (the model may try again)   Failed (it may not)

`message` is safe to show to an end user and says the next step; `detail` is for the log only. `api/problems.py` turns
each class into a status; nobody else knows one.
"""

from __future__ import annotations


class ConveneError(Exception):
    """The root: an error that Convene itself raises and can explain."""

    code = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        detail: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        """Explain the fault.

        Args:
            message: for the client; names the field or the thing, and the way out.
            code: OpenAI's word for it (ERRSHAPE-05); each class has a default.
            param: the offending request field (ERRSHAPE-06).
            detail: for the log only; may name hosts and upstream words, never a secret.
            retry_after_s: seconds after which another try makes sense.
        """
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.param = param
        self.detail = detail
        self.retry_after_s = retry_after_s


class ClientFault(ConveneError):
    """The caller can mend it."""

    code = "invalid_value"


class BadRequest(ClientFault):
    """A malformed or impossible request."""


class Unauthorized(ClientFault):
    """No key, or not a valid one."""

    code = "invalid_api_key"


class Forbidden(ClientFault):
    """A valid key that may not do this."""

    code = "permission_denied"


class NotFound(ClientFault):
    """What was named does not exist, or is somebody else's (invariant 9)."""

    code = "not_found"


class Conflict(ClientFault):
    """It contradicts something under way."""

    code = "conflict"


class TooLarge(ClientFault):
    """Above a size cap that the message names."""

    code = "request_too_large"


class Refused(ConveneError):
    """A well-formed request that may not run now."""

    code = "rate_limit_exceeded"


class RateLimited(Refused):
    """A limit on requests or tokens; `retry_after_s` says when to come back."""


class OverBudget(Refused):
    """A spent quota; coming back does not help (decisions 10)."""

    code = "insufficient_quota"


class Busy(Refused):
    """This server has no room, or is shutting down."""

    code = "server_busy"


class StoreFault(ConveneError):
    """What is remembered cannot be read or written now; `detail` has the reason."""

    code = "store_unavailable"


class UpstreamFault(ConveneError):
    """Whoever was to generate the answer failed."""

    code = "upstream_error"


class Unavailable(UpstreamFault):
    """It cannot be reached, is loading, or is switched off by the circuit breaker."""

    code = "model_unavailable"


class TimedOut(UpstreamFault):
    """It did not answer in time."""

    code = "upstream_timeout"


class Rejected(UpstreamFault):
    """It refused for a reason that is not the caller's (its key, its quota)."""

    code = "upstream_rejected"


class Malformed(UpstreamFault):
    """It answered something that is not the protocol, or broke off in the middle."""

    code = "upstream_malformed"


class ToolFault(ConveneError):
    """A tool inside a turn failed."""

    code = "tool_error"


class Retry(ToolFault):
    """The model may try again with other arguments."""


class Failed(ToolFault):
    """Trying again is pointless."""
