"""What a reader sees: pictures, figures, tables, the threshold slider, and the report."""
