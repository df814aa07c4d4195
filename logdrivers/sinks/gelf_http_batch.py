"""Messages on their way to a GELF HTTP input: which of them are taken, refused or still to be sent.

A batch that was interrupted comes again from the journal; what had been settled of it is found again here by
its bytes' hash, so nothing is posted twice that was answered. Requests and connections are
``logdrivers/sinks/gelf_http.py``.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

__all__ = ["Batch", "Run", "Settled"]

_TAKEN = ""

#: What became of the first messages of a batch: a message's hash, and its outcome as in ``Batch``.
Settled = Sequence[tuple[int, str | None]]

#: Messages of one request: the first's index, and the index behind the last.
Run = tuple[int, int]


class Batch:
    """The messages of one ``send``. ``before`` is what was settled of the batch that was interrupted, if one was."""

    def __init__(self, messages: Sequence[bytes], before: Settled = ()) -> None:
        self.messages = messages
        #: None for a message that is open, ``""`` for one that is taken, else why it is refused.
        self._outcomes: list[str | None] = [None] * len(messages)
        self._waiting: deque[Run] = deque()
        # Where one differs, retention has taken lines meanwhile, and none is known to be the same.
        if all(hash(message) == then for message, (then, _) in zip(messages, before, strict=False)):
            known = [outcome for _, outcome in before][: len(messages)]
            self._outcomes[: len(known)] = known

    def settled(self) -> Settled:
        """To be remembered while the sink is down: nothing, mostly, and never the messages."""
        count = len(self._outcomes)
        while count and self._outcomes[count - 1] is None:
            count -= 1
        return [(hash(self.messages[index]), self._outcomes[index]) for index in range(count)]

    def plan(self, run_bytes: int) -> None:
        """Put open messages together to runs of at most so many bytes; 0 is one by one."""
        self._waiting.clear()
        start = size = 0
        outcomes = self._outcomes
        for index, message in enumerate(self.messages):
            length = len(message) + 1
            if outcomes[index] is not None or size + length > run_bytes:
                if start < index:
                    self._waiting.append((start, index))
                start, size = index, 0
                if outcomes[index] is not None:
                    start += 1
                    continue
            size += length
        if start < len(self.messages):
            self._waiting.append((start, len(self.messages)))

    def next(self, count: int, most_bytes: int) -> list[Run]:
        """The next runs to send: at most so many, and so many bytes beyond the first."""
        runs: list[Run] = []
        left = most_bytes
        while self._waiting and len(runs) < count:
            start, end = self._waiting[0]
            left -= sum(map(len, self.messages[start:end]))
            if runs and left < 0:
                break
            runs.append(self._waiting.popleft())
        return runs

    def again(self, runs: Sequence[Run]) -> None:
        """These have no answer: they are the next."""
        self._waiting.extendleft(reversed(runs))

    def take(self, run: Run) -> None:
        """The server has taken the run."""
        start, end = run
        self._outcomes[start:end] = [_TAKEN] * (end - start)

    def refuse(self, run: Run, cause: str) -> list[Run]:
        """The server will not take the run: a message alone counts as refused; halves of more are the next."""
        start, end = run
        if end - start == 1:
            self._outcomes[start] = cause
            return []
        middle = (start + end) // 2
        halves = [(start, middle), (middle, end)]
        self.again(halves)
        return halves

    def refused(self) -> Counter[str]:
        """Messages by why they were refused."""
        return Counter(outcome for outcome in self._outcomes if outcome)
