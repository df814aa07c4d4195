"""Series to a remote-write receiver: VictoriaMetrics, Mimir, Thanos, Prometheus itself."""
