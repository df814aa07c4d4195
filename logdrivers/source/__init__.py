"""What happens to a container's bytes before they are blocks: spooled, split, joined to messages, limited."""
