"""Sends the page of metrics to a remote-write receiver every interval, and what waited when it is back.

Two loops meet in the queue on disk: one makes requests on the tick whatever the network does, one sends
them in order. Retried is what may pass (429, 5xx, no answer), dropped and counted what the receiver refuses.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import random
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import aiohttp

from exporters.remote_write.batches import Batch, Batches
from exporters.remote_write.config import RemoteWriteConfig
from exporters.remote_write.queue import Queue

__all__ = ["RemoteWriteExporter", "retry_after"]

logger = logging.getLogger(__name__)

_HEADERS = {
    "Content-Encoding": "snappy",
    "Content-Type": "application/x-protobuf",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
    "User-Agent": "taffrail",
}


class RemoteWriteExporter:
    """One receiver. ``page`` renders the metrics; it is called in a thread."""

    def __init__(
        self, config: RemoteWriteConfig, page: Callable[[], bytes], clock: Callable[[], float] = time.time
    ) -> None:
        """Open the queue. Raises OSError for its directory, ValueError for certificates that cannot be used."""
        self.queue = Queue(config.directory, config.queue_bytes)
        self.batches = Batches(config.external_labels)
        self.requests = 0  #: sent, answered or not
        self.failures: dict[
            str, int
        ] = {}  #: by cause: ``status_503``, ``connection``, ``timeout``, ``page`` …
        self.up = False  #: the last request was answered with success
        self.cpu_seconds = 0.0  #: spent in making requests from the page, rendering it not included
        self._config = config
        self._page = page
        self._clock = clock
        self._tls: ssl.SSLContext | None = config.tls()
        self._more = asyncio.Event()

    async def run(self) -> None:
        """Make and send until cancelled; what was not sent stays in the queue."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._make())
            group.create_task(self._send())

    async def _make(self) -> None:
        loop = asyncio.get_running_loop()
        tick = loop.time()
        while True:
            await self.make_once()
            tick = max(tick + self._config.interval_seconds, loop.time())
            await asyncio.sleep(tick - loop.time())

    async def make_once(self) -> None:
        """Render the page and queue its requests."""
        try:
            made = await asyncio.to_thread(self._requests)
        except ValueError as error:
            self._failed("page")
            logger.warning("cannot make a remote-write request from the page of metrics: %s", error)
            return
        except Exception:  # whatever failed to be rendered, the next page may do
            self._failed("page")
            logger.exception("cannot make a remote-write request: the page of metrics failed")
            return
        for batch in made:
            self.queue.append(batch)
        self._more.set()

    def _requests(self) -> list[Batch]:
        page = self._page()
        moment = int(self._clock() * 1000)
        before = time.thread_time()
        made = list(self.batches.of(page, moment))
        self.cpu_seconds += time.thread_time() - before
        return made

    async def _send(self) -> None:
        timeout = aiohttp.ClientTimeout(total=self._config.timeout_seconds)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
            pause = self._config.backoff_seconds
            while True:
                wait = await self.send_first(session)
                if wait is None:  # nothing to send
                    self._more.clear()
                    await self._more.wait()
                elif wait == 0:
                    pause = self._config.backoff_seconds
                else:
                    # Apart from each other where many agents lost one receiver.
                    await asyncio.sleep(max(wait, pause * random.uniform(0.5, 1.0)))
                    pause = min(pause * 2, self._config.longest_backoff_seconds)

    async def send_first(self, session: aiohttp.ClientSession) -> float | None:
        """Send the oldest request. None: there is none; 0: it is settled; else try again after so many seconds."""
        first = self.queue.first()
        if first is None:
            return None
        entry, body = first
        self.requests += 1
        try:
            async with session.post(
                self._config.url,
                data=body,
                headers={**self._config.headers, **_HEADERS, **self._credentials()},
                ssl=self._tls if self._tls is not None else True,
                allow_redirects=False,
            ) as answer:
                status = answer.status
                text = (
                    ""
                    if status < 300
                    else (await answer.content.read(500)).decode("utf-8", "replace").strip()
                )
                asked = answer.headers.get("Retry-After", "")
        except TimeoutError:
            return self._unreached("timeout", f"no answer in {self._config.timeout_seconds:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return self._unreached("connection", str(error) or type(error).__name__)
        if 200 <= status < 300:
            if not self.up:
                logger.info(
                    "remote write to %s works, %d requests wait", self._config.url, len(self.queue) - 1
                )
            self.up = True
            self.queue.done(entry)
            return 0.0
        said = f"status {status}: {text!r}"
        if status == 429 or status >= 500 or status < 400:
            wait = self._unreached(f"status_{status}", said)
            return max(wait, min(retry_after(asked, self._clock()), self._config.longest_retry_after_seconds))
        self.up = False
        first_time = self._failed(f"status_{status}")
        level = logging.WARNING if first_time else logging.DEBUG
        logger.log(level, "%s refused %d samples with %s", self._config.url, entry.samples, said)
        self.queue.drop(entry, "rejected")
        return 0.0

    def _unreached(self, cause: str, why: str) -> float:
        first_time = self._failed(cause)
        level = logging.WARNING if self.up or first_time else logging.DEBUG
        logger.log(level, "cannot write to %s: %s; %d samples wait", self._config.url, why, self.queue.held)
        self.up = False
        return 0.001

    def _failed(self, cause: str) -> bool:
        count = self.failures[cause] = self.failures.get(cause, 0) + 1
        return count == 1

    def _credentials(self) -> dict[str, str]:
        """Raises OSError naming the file that cannot be read."""
        if self._config.bearer_token_file:
            return {"Authorization": f"Bearer {_secret(self._config.bearer_token_file)}"}
        if self._config.username:
            pair = f"{self._config.username}:{_secret(self._config.password_file)}"
            return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
        return {}


def retry_after(header: str, now: float) -> float:
    """Seconds a Retry-After header asks for (RFC 9110, 10.2.3: a number or a date); 0 where it says neither."""
    if header.isascii() and header.strip().isdigit():
        return float(header)
    try:
        moment = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max((moment - datetime.fromtimestamp(now, UTC)).total_seconds(), 0.0)


def _secret(path: str) -> str:
    """The first line of a file. Raises OSError naming it."""
    try:
        return Path(path).read_text(encoding="utf-8").strip().partition("\n")[0].strip()
    except UnicodeDecodeError as error:
        raise OSError(f"{path}: {error}") from error
