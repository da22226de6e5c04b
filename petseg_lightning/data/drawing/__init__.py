"""Pictures of drawn cats and dogs with exact trimaps."""
