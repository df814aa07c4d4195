"""Networks of containers: definitions, kernel plumbing, NAT, published ports, names."""
