"""Container and host series under cAdvisor's and Node Exporter's names."""
