"""Photographs from elsewhere: official downloads, archives, drawn ones, and published scores."""
