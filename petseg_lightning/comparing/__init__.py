"""Comparing trainings: run folders -> settings and their seeds -> intervals and tests -> tables and a page."""
