"""The Grafana dashboards: described in Python, kept as the JSON Grafana imports."""
