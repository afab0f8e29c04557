"""Drawn faces: canvas, traits and the layers of a face."""
