"""Readers of the file formats in which heads were published; none of them runs code of a file."""
