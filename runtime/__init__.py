"""The engine: OCI containers through runc behind the Docker Engine API, a shim for each."""
