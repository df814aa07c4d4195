"""Where lines leave the host: connections and datagrams, and what each protocol's driver sends over them."""
