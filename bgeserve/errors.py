"""Every error that bge-serve raises on purpose, one tree:

    BgeServeError
    ├── RequestError (the caller's to mend: 4xx)
    │   ├── InvalidRequest             400  a field is wrong: names the field, the limit and what was sent
    │   │   └── TextTooLong            400  and may not be cut
    │   ├── Unauthorized               401  no key, or one that is not valid
    │   ├── Forbidden                  403  outside of what the key may use: names both
    │   ├── NotFound                   404  an unknown document or collection
    │   │   └── UnknownModel           404
    │   ├── WrongRole                  400  an embedder asked to rerank, or the reverse
    │   ├── FingerprintMismatch        409  vectors of one model offered to an index of another
    │   ├── Conflict                   409  what is asked for does not go with what is there: names both
    │   ├── StaleWrite                 409  a write whose sequence number the owner no longer knows: begin it again
    │   ├── SlowBody                   408  it did not arrive in time
    │   ├── TooLarge                   413
    │   └── Overloaded                 429  carries retry_after_s
    │       ├── ReplicaFull                 one replica's queue is full; another may have room
    │       └── RateLimited                 the key has had its tokens for now
    ├── ServiceError (ours: 5xx)
    │   ├── Unavailable                503  carries retry_after_s: a replica or a store is not there yet
    │   ├── StorageFull                507
    │   ├── DeadlineExceeded           504
    │   └── ComputeError               500  the model failed on this input alone
    └── StartupError (refused before serving)
        ├── SettingsError                   the configuration
        ├── CheckpointError                 a model's folder: names the file
        └── StoreError                      a store's folder
            └── StoreInUse                  has an owner, who may be about to go

They pickle through Ray unchanged.
"""

from __future__ import annotations

from typing import Any, ClassVar


class BgeServeError(Exception):
    """Root of the tree; `code` is stable and for programs, the message is for people."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, *, field: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.__dict__)


def _rebuild(kind: type[BgeServeError], attributes: dict[str, Any]) -> BgeServeError:
    error = kind.__new__(kind, attributes["message"])
    error.__dict__.update(attributes)
    return error


class RequestError(BgeServeError):
    status = 400
    code = "invalid_request"


class InvalidRequest(RequestError):
    pass


class TextTooLong(InvalidRequest):
    """`field` and `index` say which text, in the words of whoever was asked; who split what came in says it `at` its place."""

    code = "text_too_long"

    def __init__(self, field: str, index: int | None, tokens: int, max_tokens: int) -> None:
        where = field if index is None else f"{field}[{index}]"
        super().__init__(f"{where} has at least {tokens} tokens; the limit is {max_tokens}, and truncate is false", field=field)
        self.index = index
        self.tokens = tokens
        self.max_tokens = max_tokens

    def at(self, field: str, index: int | None) -> TextTooLong:
        return TextTooLong(field, index, self.tokens, self.max_tokens)


class Unauthorized(RequestError):
    status = 401
    code = "unauthorized"


class Forbidden(RequestError):
    status = 403
    code = "forbidden"


class NotFound(RequestError):
    status = 404
    code = "not_found"


class UnknownModel(NotFound):
    code = "model_not_found"


class WrongRole(RequestError):
    code = "wrong_role"


class FingerprintMismatch(RequestError):
    status = 409
    code = "fingerprint_mismatch"


class Conflict(RequestError):
    status = 409
    code = "conflict"


class StaleWrite(RequestError):
    status = 409
    code = "stale_write"


class SlowBody(RequestError):
    status = 408
    code = "slow_body"


class TooLarge(RequestError):
    status = 413
    code = "too_large"


class Overloaded(RequestError):
    status = 429
    code = "overloaded"


class ReplicaFull(Overloaded):
    code = "replica_full"


class RateLimited(Overloaded):
    code = "rate_limited"


class ServiceError(BgeServeError):
    pass


class Unavailable(ServiceError):
    status = 503
    code = "unavailable"


class DeadlineExceeded(ServiceError):
    status = 504
    code = "deadline_exceeded"


class StorageFull(ServiceError):
    status = 507
    code = "storage_full"


class ComputeError(ServiceError):
    code = "compute_error"


class StartupError(BgeServeError):
    pass


class SettingsError(StartupError):
    code = "settings"


class CheckpointError(StartupError):
    code = "checkpoint"


class StoreError(StartupError):
    code = "store"


class StoreInUse(StoreError):
    code = "store_in_use"
