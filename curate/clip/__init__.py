"""CLIP for the stages that need one: loading, identity, encoding, and the files of vectors."""
