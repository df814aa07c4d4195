"""What the host itself has and uses: CPUs, memory, disks, file systems, its identity."""
