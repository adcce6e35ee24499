"""The end-to-end comparison: rnet beside its peers, on one machine. README.md says how to read it."""
