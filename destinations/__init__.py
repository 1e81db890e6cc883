"""Destinations beside the product's stages: they import what any module on Python's path could, and
no more.
"""
