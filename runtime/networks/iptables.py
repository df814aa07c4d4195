"""Living beside a firewall that drops forwarded packets by default, as Docker Engine and ufw set it up.

A packet must be accepted by every table, so ours cannot overrule theirs: a chain of our own is hung into the
``FORWARD`` chain that drops. What our bridges may do is decided in ``nat``; nothing happens on hosts whose
``FORWARD`` chain accepts, or that have no iptables.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Sequence

__all__ = ["ForwardChain"]

log = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 20
_OTHERS_BRIDGES = ("docker+", "br-+")


class ForwardChain:
    """Our chain in the filter table, named after our nftables table."""

    def __init__(self, table: str) -> None:
        self._chain = f"{table[:20]}-forward".upper()

    def accept(self, bridges: Sequence[str]) -> bool:
        """Let the bridges' packets pass; True if the host drops others' and the chain was needed."""
        if shutil.which("iptables") is None:
            return False
        listed = self._run("iptables", "-w", "-S", "FORWARD")
        if listed is None or not listed.startswith("-P FORWARD DROP"):
            return False
        rules = [f"-A {self._chain} -o {bridge} -j ACCEPT" for bridge in bridges]
        for bridge in bridges:
            # the way to other engines' containers is theirs to judge
            rules += [f"-A {self._chain} -i {bridge} -o {other} -j RETURN" for other in _OTHERS_BRIDGES]
            rules.append(f"-A {self._chain} -i {bridge} -j ACCEPT")
        script = "\n".join(["*filter", f":{self._chain} - [0:0]", *rules, "COMMIT", ""])
        self._run("iptables-restore", "-w", "--noflush", stdin=script)
        if f"-A FORWARD -j {self._chain}" not in listed.splitlines():
            self._run("iptables", "-w", "-I", "FORWARD", "-j", self._chain)
        return True

    def remove(self) -> None:
        """Take the chain out again; nothing happens if it is not there."""
        if shutil.which("iptables") is None:
            return
        listed = self._run("iptables", "-w", "-S")
        if listed is None or f"-N {self._chain}" not in listed.splitlines():
            return
        if f"-A FORWARD -j {self._chain}" in listed.splitlines():
            self._run("iptables", "-w", "-D", "FORWARD", "-j", self._chain)
        self._run("iptables", "-w", "-F", self._chain)
        self._run("iptables", "-w", "-X", self._chain)

    def _run(self, *command: str, stdin: str = "") -> str | None:
        try:
            done = subprocess.run(
                command, input=stdin, text=True, capture_output=True, timeout=_TIMEOUT_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            log.warning("let containers' packets pass the host's firewall: %s: %s", command[0], error)
            return None
        if done.returncode:
            log.warning(
                "let containers' packets pass the host's firewall: %s: %s",
                " ".join(command),
                done.stderr.strip()[:300],
            )
            return None
        return done.stdout
