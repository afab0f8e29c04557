"""Measurements of the product; they import it and are never imported by it."""
