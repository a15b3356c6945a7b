"""What a drawing says: centrelines, widths, courses, scale, and what kind each mistake is."""
