"""A program one of whose threads burns a CPU while others wait, each under a name; tests import it by name."""

from __future__ import annotations


def burning_program(waiting: int) -> str:
    """Python code that starts threads ``idle-0``, ``idle-1``, … and ``the-burner``, and goes on."""
    return f"""
import ctypes, threading
prctl = ctypes.CDLL(None).prctl
def idle(name):
    prctl(15, name.encode(), 0, 0, 0)
    threading.Event().wait()
for number in range({waiting}):
    threading.Thread(target=idle, args=(f"idle-{{number}}",), daemon=True).start()
def burn():
    prctl(15, b"the-burner", 0, 0, 0)
    while True:
        pass
threading.Thread(target=burn, daemon=True).start()
"""
