"""The process beside each container, the template it is forked from, and the engine's side of both."""
