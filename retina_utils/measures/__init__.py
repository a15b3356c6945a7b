"""What a drawing says of the vessels: centrelines, widths, and what kind each mistake is."""
