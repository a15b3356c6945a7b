"""What a drawing says: centrelines, widths, courses, and what kind each mistake is."""
