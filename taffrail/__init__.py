"""The front door: the command, the configuration, the one place where the parts are built and wired."""

#: Of the distribution, too (pyproject.toml reads it here): its metadata would cost importlib.metadata's memory.
__version__ = "0.1.0"
