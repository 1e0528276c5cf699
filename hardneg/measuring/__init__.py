"""Metrics, intervals, agreement, and questions whose answers people graded."""
