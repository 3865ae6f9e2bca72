"""What visitors write."""
