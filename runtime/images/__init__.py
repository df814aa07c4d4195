"""Images: their store, layers, archives, references, and fetching them."""
