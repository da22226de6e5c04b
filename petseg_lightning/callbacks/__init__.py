"""What happens beside training and testing."""
