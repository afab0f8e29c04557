"""Edits by a sentence: what it speaks of, and the codes that bring picture and words together."""
