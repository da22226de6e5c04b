"""Sweeps that survive: jobs, their identity and state, launchers, and the search with Optuna."""

import warnings

warnings.filterwarnings("ignore", message=r"\n'hydra/launcher/\w+' is validated against ConfigStore schema")  # as meant
