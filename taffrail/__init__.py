"""The front door: the command, the configuration, the one place where the parts are built and wired."""
