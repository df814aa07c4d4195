"""The sink of the ``gelf`` driver for ``http`` and ``https``: messages posted as Graylog's GELF HTTP input takes them.

Requests go ahead of their answers on one connection, cautiously: the next only when the server has shown that it
answers such requests. What each answer means is decided here; who has answered what is ``gelf_http_batch.py``.
"""

from __future__ import annotations

import base64
import logging
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import NamedTuple

from isal import igzip

from logdrivers.block import Block
from logdrivers.codecs.gelf import Compressed, GelfEncoder
from logdrivers.codecs.http_response import HttpError, Response, ResponseReader
from logdrivers.driver import EMPTY_LINE, OptionError, Rejected, SinkDown
from logdrivers.sinks.gelf_address import GelfAddress
from logdrivers.sinks.gelf_http_batch import Batch, Run, Settled
from logdrivers.sinks.stream_sink import StreamSink
from logdrivers.sinks.tls import Tls

__all__ = ["GelfHttpSink", "Posting"]

log = logging.getLogger(__name__)

_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 30.0
#: Requests ahead of their answers, and their bytes: answers to them fit into any socket's buffer.
_WINDOW, _WINDOW_BYTES = 64, 256 << 10
#: A request's body in bulk, unpacked: Graylog takes 64 KiB unless told otherwise.
_BULK_BYTES = 60_000
#: Answers that may be meant for the message or for all of them, until the sink counts as down.
_DOUBTS = 16


@dataclass(frozen=True, slots=True)
class Posting:
    """How messages are posted: the options of the driver that have to do with HTTP."""

    bulk: bool = False  #: many messages a request, each on a line of its own
    gzip: bool = False
    username: str = ""
    password: str = ""
    password_file: str = ""  #: read at every connection; takes the place of ``password``
    headers: Sequence[tuple[str, str]] = ()

    def read_password(self) -> str:
        """Raises OptionError for a file that cannot be read."""
        if not self.password_file:
            return self.password
        try:
            return Path(self.password_file).read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise OptionError(
                f'could not read gelf-http-password-file "{self.password_file}": {why}'
            ) from None


class _Verdict(Enum):
    TAKEN = auto()
    REFUSED = auto()  #: for good
    DOUBTED = auto()  #: for good if the server takes other messages; else it is set up wrongly, or we are
    BUSY = auto()  #: for now


def _verdict(status: int, proven: bool) -> _Verdict:
    if 200 <= status < 300:
        return _Verdict.TAKEN
    if status in (413, 422) or (status == 400 and proven):
        return _Verdict.REFUSED
    if 400 <= status < 500 and status not in (408, 425, 429):
        return _Verdict.DOUBTED
    return _Verdict.BUSY


class _Doubts:
    """Refusals that may be meant for a message or for whatever we send: what is taken after them tells."""

    def __init__(self) -> None:
        self.count = 0  #: since something was taken
        self.last = ""  #: what the server said
        self._takes = 0
        self._since: dict[
            Run, int
        ] = {}  # what had been taken when the run, as a part of one, was first doubted
        self._single: list[tuple[Run, Response]] = []

    def meant(self, run: Run, response: Response) -> bool:
        """A refusal came: whether it is for the run, or for a part of it, as far as is known."""
        if self._since.setdefault(run, self._takes) < self._takes:
            return True
        self.count += 1
        self.last = _said(response)
        if run[1] - run[0] > 1:
            return True
        self._single.append((run, response))
        return False

    def divide(self, run: Run, halves: Sequence[Run]) -> None:
        """The run is sent again in halves."""
        since = self._since.pop(run)
        self._since.update(dict.fromkeys(halves, since))

    def resolve(self) -> list[tuple[Run, Response]]:
        """The server has taken something: the messages that were refused before it were meant."""
        resolved, self._single = self._single, []
        self._takes += 1
        self.count = 0
        return resolved


class _Answers(NamedTuple):
    """What the requests of a window got, in their order."""

    responses: list[Response]
    failure: str  #: why there are no more; "" if there need be none, or the rest may be asked again at once


class GelfHttpSink(StreamSink):
    """Posts over one connection that is kept."""

    _server_answers = True

    def __init__(
        self, address: GelfAddress, encoder: GelfEncoder, posting: Posting, tls: Tls | None = None
    ) -> None:
        super().__init__(address.host, address.port, _CONNECT_SECONDS, name=str(address), tls=tls)
        self._address = address
        self._encoder = encoder
        self._posting = posting
        self._payloads: Callable[[Block], list[bytes]] = (
            Compressed(encoder).payloads if posting.gzip and not posting.bulk else encoder.payloads
        )
        self._head = b""  # of every request on this connection
        self._reader = ResponseReader()
        self._run_bytes = _BULK_BYTES if posting.bulk else 0
        self._window = 1
        self._most = _WINDOW  # what the window may grow to
        self._ahead_works = False  # requests ahead of their answers were all answered
        self._proven = False  # the server has taken a message
        self._interrupted: Settled = ()
        self._stopped = False

    def send(self, blocks: Sequence[Block]) -> None:
        """Return once every message has its answer. Raises SinkDown; Rejected by cause, the rest taken."""
        before = self._encoder.empty_lines
        messages = [message for block in blocks for message in self._payloads(block)]
        empty = self._encoder.empty_lines - before
        batch, self._interrupted = Batch(messages, self._interrupted), ()
        self._stopped = False
        try:
            with self._shared.used():
                self._post(batch)
        except SinkDown:
            self._interrupted = batch.settled()
            raise
        Rejected.check({**batch.refused(), EMPTY_LINE: empty})

    def close(self) -> None:
        """Give up the connection at once, also under a thread that waits for an answer."""
        self._stopped = True
        super().close()

    def _hang_up(self) -> None:
        super().close()

    # --- what becomes of the messages ---

    def _post(self, batch: Batch) -> None:
        batch.plan(self._run_bytes)
        doubts = _Doubts()
        while doubts.count < _DOUBTS and (runs := batch.next(self._window, _WINDOW_BYTES)):
            answers = self._exchange([b"\n".join(batch.messages[start:end]) for start, end in runs])
            batch.again(runs[len(answers.responses) :])
            failure = answers.failure
            for run, response in zip(runs, answers.responses, strict=False):
                verdict = _verdict(response.status, self._proven)
                if verdict is _Verdict.TAKEN:
                    self._proven = True
                    batch.take(run)
                    for one, refusal in doubts.resolve():
                        self._refuse(batch, one, refusal)
                elif verdict is _Verdict.REFUSED:
                    self._refuse(batch, run, response)
                elif verdict is _Verdict.BUSY:
                    failure = failure or f"{self._name} answered {_said(response)}"
                    self._window = 1
                elif doubts.meant(run, response):
                    doubts.divide(run, self._refuse(batch, run, response))
            if failure:
                raise SinkDown(failure)
        if doubts.count:
            raise SinkDown(f"{self._name} answered {doubts.last}")

    def _refuse(self, batch: Batch, run: Run, response: Response) -> list[Run]:
        """Count a message as refused; of more, the halves, which are sent next."""
        start, end = run
        too_large = response.status == 413
        if end - start == 1:
            log.warning("%s refuses a message for good: %s", self._name, _said(response))
        elif too_large:
            size = sum(map(len, batch.messages[start:end]))
            self._run_bytes = max(1, min(self._run_bytes, size // 2))
        return batch.refuse(run, "too_large" if too_large else f"http_{response.status}")

    # --- one window over the connection ---

    def _exchange(self, bodies: Sequence[bytes]) -> _Answers:
        """Post the bodies, all ahead of the first answer."""
        responses: list[Response] = []
        kept = self._still_good()
        while True:
            try:
                sock = self._connection()
                self._converse(sock, b"".join(map(self._request, bodies)), len(bodies), responses)
            except SinkDown as error:
                return _Answers(responses, str(error))
            except (OSError, HttpError) as error:
                self._hang_up()
                closed = isinstance(error, ConnectionError) and not self._stopped
                if closed and kept and not responses:
                    kept = False  # kept for longer than the server cares to: it has not seen the requests
                    continue
                self._fall_back(len(bodies))
                again = closed and responses
                return _Answers(responses, "" if again else f"cannot post to {self._name}: {error}")
            if not responses[-1].keep_alive:
                self._hang_up()
            if len(responses) < len(bodies):
                self._fall_back(len(bodies))
            elif responses[-1].keep_alive:
                self._ahead_works = self._ahead_works or len(bodies) > 1
                self._window = min(self._window * 2, self._most)
            return _Answers(responses, "")

    def _fall_back(self, sent: int) -> None:
        """Not all requests were answered: one by one from now on, for good if it never was different."""
        if sent > 1 and not self._ahead_works:
            self._most = 1
        self._window = 1

    def _converse(self, sock: socket.socket, data: bytes, count: int, responses: list[Response]) -> None:
        """Add the answers to ``responses``: all, or those up to one that says that the connection ends.

        Raises OSError (ConnectionError if the server closed), HttpError.
        """
        sock.settimeout(_ANSWER_SECONDS)
        unsent: ConnectionError | None = None
        try:
            sock.sendall(data)
        except ConnectionError as error:  # it may have said why
            unsent = error
        deadline = time.monotonic() + _ANSWER_SECONDS
        while True:
            sock.settimeout(max(deadline - time.monotonic(), 0.001))
            received = self._receive(sock)
            if received is None:
                raise unsent or ConnectionResetError("the server closed the connection before it answered")
            if received:
                deadline = time.monotonic() + _ANSWER_SECONDS
            for response in received:
                responses.append(response)
                if not response.keep_alive:
                    return
            if len(responses) >= count:
                break
        if len(responses) > count or self._reader.pending_bytes:
            del responses[count:]
            raise HttpError("the server answered more than it was asked")

    def _receive(self, sock: socket.socket) -> list[Response] | None:
        """Answers that are complete now; None if the server has closed without one."""
        try:
            data = sock.recv(1 << 16)
        except TimeoutError:
            raise TimeoutError(f"no answer within {_ANSWER_SECONDS:g} s") from None
        if data:
            return self._reader.feed(data)
        last = self._reader.end()
        return None if last is None else [last]

    def _still_good(self) -> bool:
        """Whether there is a connection on which nothing has come since the last answer."""
        sock = self._sock
        if sock is None:
            return False
        sock.setblocking(False)
        try:
            sock.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:  # reset
            pass
        self._hang_up()
        return False

    def _connect(self) -> socket.socket:
        try:
            self._head = _request_head(self._address, self._posting)
        except OptionError as error:
            raise SinkDown(f"cannot post to {self._name}: {error}") from error
        self._reader = ResponseReader()
        return super()._connect()

    def _request(self, body: bytes) -> bytes:
        if self._posting.gzip and self._posting.bulk:
            body = igzip.compress(body, 1, mtime=0)
        return b"%s%d\r\n\r\n%s" % (self._head, len(body), body)


def _request_head(address: GelfAddress, posting: Posting) -> bytes:
    """Up to the length of the body."""
    fields = [("Host", address.authority), ("User-Agent", "Taffrail"), ("Content-Type", "application/json")]
    if posting.gzip:
        fields.append(("Content-Encoding", "gzip"))
    if posting.username:
        pair = f"{posting.username}:{posting.read_password()}".encode()
        fields.append(("Authorization", f"Basic {base64.b64encode(pair).decode()}"))
    fields += posting.headers
    lines = [f"POST {address.target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
    return "\r\n".join([*lines, "Content-Length: "]).encode()


def _said(response: Response) -> str:
    """For people: the status, its reason and the beginning of the body."""
    text = " ".join(response.body[:400].decode("utf-8", "replace").split())
    head = f"{response.status} {response.reason}".rstrip()
    return f"{head}: {text[:200]}" if text else head
