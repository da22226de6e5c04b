"""Comparing trainings: run folders -> settings and their runs -> intervals and tests -> tables and a page."""
