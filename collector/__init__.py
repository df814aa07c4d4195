"""The per-host collector: discovers containers, samples their counters, receives and stores their logs."""
