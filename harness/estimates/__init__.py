"""What cells would take: time, disk, hours of devices."""
