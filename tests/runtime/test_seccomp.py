"""The seccomp profile, tried by real system calls in a real container."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runtime.errors import BadRequest
from runtime.oci.seccomp import architectures, default_profile, profile_from_docker
from runtime.oci.spec import SpecMount

EPERM, ENOSYS = 1, 38

#: Numbers on x86_64 (syscall(2), asm/unistd_64.h); the arguments make each fail in another way if let through.
REFUSED = {
    "acct": 163, "add_key": 248, "bpf": 321, "clock_settime": 227, "delete_module": 176, "fanotify_init": 300,
    "finit_module": 313, "fsopen": 430, "get_mempolicy": 239, "init_module": 175, "io_uring_setup": 425,
    "ioperm": 173, "iopl": 172, "kcmp": 312, "kexec_load": 246, "keyctl": 250, "lookup_dcookie": 212,
    "mbind": 237, "mount": 165, "mount_setattr": 442, "move_mount": 429, "move_pages": 279,
    "open_by_handle_at": 304, "open_tree": 428, "perf_event_open": 298, "pidfd_getfd": 438, "pivot_root": 155,
    "process_vm_readv": 310, "quotactl": 179, "reboot": 169, "request_key": 249, "set_mempolicy": 238,
    "setns": 308, "settimeofday": 164, "swapoff": 168, "swapon": 167, "sysfs": 139, "syslog": 103,
    "umount2": 166, "unshare": 272, "userfaultfd": 323, "ustat": 136, "vhangup": 153,
}  # fmt: skip

PROGRAM = """
import ctypes, json, os, subprocess, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(number, *args):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_ulong(a) for a in args))
    return ctypes.get_errno() if result == -1 else 0
out = {name: call(number, *[-1] * 5) for name, number in json.loads(sys.argv[1]).items()}
def clone(flag):
    result = libc.syscall(56, ctypes.c_ulong(flag | 17), 0, 0, 0, 0)
    if result == 0:
        os._exit(0)
    if result > 0:
        os.waitpid(result, 0)
    return ctypes.get_errno() if result == -1 else 0
out['clone'] = {hex(flag): clone(flag) for flag in
    (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)}
out['clone3'] = call(435, 0, 0)
out['vsock'] = call(41, 40, 1, 0)
out['personality'] = {hex(v): call(135, v) for v in
    (0, 8, 0x20000, 0x20008, 0xffffffff, 0x40000, 0x80040000, 0xfffdfff7, 0xfffffff7, 0xfffdffff, 1, 0x400000)}
call(135, 0)
done = []
thread = threading.Thread(target=done.append, args=(1,)); thread.start(); thread.join()
out['thread'] = done
out['child'] = subprocess.run(['/usr/bin/python3', '-c', 'print(6*7)'], capture_output=True, text=True).stdout
print(json.dumps(out))
"""


def run_python(bundles: Any, **host: Any) -> dict[str, Any]:
    """Run the program with the host's Python, in a container."""
    done = bundles.run(
        {"Cmd": ["/usr/bin/python3", "-c", PROGRAM, json.dumps(REFUSED)], "HostConfig": host},
        mounts=[SpecMount(path, path, options=("rbind", "ro")) for path in ("/usr", "/lib", "/lib64")],
    )
    assert done.err == ""
    return dict(json.loads(done.out))


def test_the_documented_calls_are_refused_and_programs_work(bundles: Any) -> None:
    out = run_python(bundles)
    assert {name: out[name] for name in REFUSED} == dict.fromkeys(REFUSED, EPERM)
    assert set(out["clone"].values()) == {EPERM}
    assert out["clone3"] == ENOSYS
    assert out["vsock"] == EPERM
    allowed = {value for value, error in out["personality"].items() if error == 0}
    assert allowed == {"0x0", "0x8", "0x20000", "0x20008", "0xffffffff"}
    assert out["thread"] == [1]
    assert out["child"] == "42\n"


def test_a_capability_unlocks_its_calls(bundles: Any) -> None:
    out = run_python(bundles, CapAdd=["SYS_ADMIN", "SYS_PTRACE"])
    for name in ("mount", "unshare", "setns", "fsopen", "kcmp", "pidfd_getfd"):
        assert out[name] != EPERM, name
    assert out["clone"]["0x20000"] == 0
    assert out["keyctl"] == EPERM


def test_unconfined_refuses_nothing(bundles: Any) -> None:
    out = run_python(bundles, SecurityOpt=["seccomp=unconfined"])
    assert out["keyctl"] != EPERM
    assert out["personality"]["0x40000"] == 0


def test_a_profile_of_the_users_own(bundles: Any) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}],
    }
    done = bundles.run(
        {"Cmd": ["mkdir", "/x"], "HostConfig": {"SecurityOpt": [f"seccomp={json.dumps(profile)}"]}}
    )
    assert done.code != 0
    assert "Permission denied" in done.err


def test_rules_of_dockers_format_depend_on_capabilities() -> None:
    text = json.dumps(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [
                {"names": ["a"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["b"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["c"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["d"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390"]}},
                {"names": ["e"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
                {"names": ["f"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.0"}},
            ],
        }
    )

    def names(*capabilities: str) -> list[str]:
        rules = profile_from_docker(text, capabilities)["syscalls"]
        return [name for rule in rules for name in rule["names"]]

    assert names() == ["a", "c", "e"]
    assert names("CAP_SYS_ADMIN") == ["a", "b", "e"]
    assert profile_from_docker(text, ())["architectures"] == architectures()
    with pytest.raises(BadRequest, match="Decoding seccomp profile failed"):
        profile_from_docker("{", ())


def test_every_architecture_of_this_machine_is_filtered() -> None:
    assert default_profile(())["architectures"][0] == architectures()[0]
