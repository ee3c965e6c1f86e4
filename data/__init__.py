"""Catalog records, readers, the only place a file becomes pixels, label sets, splits and the sample catalog."""
