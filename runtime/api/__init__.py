"""The Docker Engine API, a file per resource."""
