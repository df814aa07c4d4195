from pathlib import Path

from taffrail.config_load import load
from taffrail.wiring import Endpoints, describe, make_paths, write_endpoints


def test_what_up_prints_is_typed_as_it_is(tmp_path: Path) -> None:
    config = load(None, {}, [f"paths.run={tmp_path}"])
    write_endpoints(make_paths(config), Endpoints(http="127.0.0.1:9480", forward="127.0.0.1:24224"))
    lines = [
        line.split(maxsplit=1) for line in describe(config, "sudo ./run --config 'my own.toml'").splitlines()
    ]
    assert ["page", "http://127.0.0.1:9480/"] in lines
    assert ["try", "sudo ./run --config 'my own.toml' stats"] in lines
    assert ["sudo", "./run --config 'my own.toml' search 'level:error' --since 10m"] in lines
