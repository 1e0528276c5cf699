"""Plumbing shared by the scripts: artifacts, encoding, judging, metrics. It parses no arguments and prints nothing."""
