"""What the OCI runtime is told: the spec with Docker's defaults, limits, security; and its command line."""
