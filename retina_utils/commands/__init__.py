"""What the Makefile calls: ``python -m retina_utils.commands NAME``; see ``__main__.py``."""
