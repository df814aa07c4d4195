"""Where log lines come in: tailed files, GELF, Forward."""
