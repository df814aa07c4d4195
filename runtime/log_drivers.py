"""temporary"""
from __future__ import annotations
from logdrivers.driver import Driver
from logdrivers.json_file import JsonFileDriver
_D = {d.name: d for d in (JsonFileDriver(),)}
def get(name: str) -> Driver:
    return _D[name]
def names() -> list[str]:
    return list(_D)
