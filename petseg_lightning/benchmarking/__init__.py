"""What a training, an evaluation and a start cost, each measured beside the least that it could cost."""
