"""Grafana dashboards, alert rules, the web page."""
