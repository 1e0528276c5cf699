"""Plumbing shared by the scripts: artifacts, encoding, judging, metrics. It defines no flags and prints no results."""
