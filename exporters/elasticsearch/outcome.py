"""What an Elasticsearch answered, item by item: taken, to be sent again, or never to be taken.

Pure: bytes in, values out. Sending again and keeping what was rejected are left to the exporter.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

__all__ = ["FILTER_PATH", "Outcome", "Rejection", "UnexpectedAnswer", "classify", "error_text"]

#: The parts of the answer that are read here; without it the answer is as long as the request.
FILTER_PATH = "errors,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by.reason"

#: The part of an answer that tells of a new document, with what divides it from the next.
_CREATED = b'{"create":{"status":201}},'
#: Answers that say something about the server (or our rights on it), not about the document.
_SERVER_STATE = frozenset({401, 403, 404, 408, 429})


class UnexpectedAnswer(ValueError):
    """The answer is not one to a bulk request of so many documents; none of them counts as taken."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A document the server will never take."""

    item: int  #: its place in the request
    status: int
    type: str  #: Elasticsearch's name of the error, the value of the ``cause`` label
    reason: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer to one bulk request; the four parts add up to its documents."""

    created: int
    duplicates: int  #: were there already: sent before, and the answer got lost
    retry: list[int] = field(default_factory=list)  #: places of those to be sent again
    retry_status: int = 0  #: the status one of those got
    rejected: list[Rejection] = field(default_factory=list)


def classify(answer: bytes, documents: int) -> Outcome:
    """Sort the items of the answer to a request of so many documents. Raises UnexpectedAnswer."""
    if answer == b'{"errors":false,"items":[%b]}' % (_CREATED * documents)[:-1]:  # nearly every answer
        return Outcome(documents, 0)
    try:
        items: list[Any] = orjson.loads(answer)["items"]
        results = [next(iter(item.values())) for item in items]
        statuses = [int(result["status"]) for result in results]
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise UnexpectedAnswer(f"not an answer to a bulk request: {answer[:200]!r}") from error
    if len(items) != documents:
        raise UnexpectedAnswer(f"expected {documents} items in the answer, got {len(items)}")
    return _sort(statuses, results)


def _sort(statuses: list[int], results: list[Any]) -> Outcome:
    created = duplicates = retry_status = 0
    retry: list[int] = []
    rejected: list[Rejection] = []
    for item, status in enumerate(statuses):
        if 200 <= status < 300:
            created += 1
        elif status == 409:
            duplicates += 1
        elif status >= 500 or status in _SERVER_STATE:
            retry.append(item)
            retry_status = status
        else:
            error = results[item].get("error")
            rejected.append(Rejection(item, status, *error_text(error)))
    return Outcome(created, duplicates, retry, retry_status, rejected)


def error_text(error: object) -> tuple[str, str]:
    """Type and reason of an ``error`` value of an answer, whatever its shape."""
    if not isinstance(error, dict):
        return "unknown", str(error)[:1000]
    reasons = [str(error.get("reason", ""))]
    caused_by = error.get("caused_by")
    if isinstance(caused_by, dict):
        reasons.append(str(caused_by.get("reason", "")))
    return str(error.get("type", "unknown")), ": ".join(filter(None, reasons))[:1000]
