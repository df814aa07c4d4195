"""The chain that lets containers' packets pass a firewall that drops by default, in a namespace of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import json, subprocess, sys
from runtime.networks.iptables import ForwardChain
def rules():
    return subprocess.run(['iptables', '-S'], capture_output=True, text=True, check=True).stdout.splitlines()
chain, out = ForwardChain('tfx'), {}
out['accepting'] = [chain.accept(['tf0']), rules()]
subprocess.run(['iptables', '-P', 'FORWARD', 'DROP'], check=True)
out['dropping'] = [chain.accept(['tf0', 'tf1']), rules()]
out['again'] = [chain.accept(['tf0']), rules()]
chain.remove(); chain.remove()
out['removed'] = rules()
print(json.dumps(out))
"""


def test_a_chain_of_our_own_where_the_host_drops() -> None:
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", SCRIPT],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    out = json.loads(done.stdout)
    plain = ["-P INPUT ACCEPT", "-P FORWARD ACCEPT", "-P OUTPUT ACCEPT"]
    assert out["accepting"] == [False, plain]
    needed, rules = out["dropping"]
    assert needed
    assert rules.count("-A FORWARD -j TFX-FORWARD") == 1
    assert [rule for rule in rules if rule.startswith("-A TFX")] == [
        "-A TFX-FORWARD -o tf0 -j ACCEPT",
        "-A TFX-FORWARD -o tf1 -j ACCEPT",
        "-A TFX-FORWARD -i tf0 -o docker+ -j RETURN",
        "-A TFX-FORWARD -i tf0 -o br-+ -j RETURN",
        "-A TFX-FORWARD -i tf0 -j ACCEPT",
        "-A TFX-FORWARD -i tf1 -o docker+ -j RETURN",
        "-A TFX-FORWARD -i tf1 -o br-+ -j RETURN",
        "-A TFX-FORWARD -i tf1 -j ACCEPT",
    ]
    assert "-A TFX-FORWARD -o tf1 -j ACCEPT" not in out["again"][1]
    assert out["again"][1].count("-A FORWARD -j TFX-FORWARD") == 1
    assert out["removed"] == [plain[0], "-P FORWARD DROP", plain[2]]
