"""Our log drivers on an unmodified Docker Engine, through its log plugin protocol."""
