"""People's judgement of the answers: a blinded sheet to rate, and the scores of its ratings."""
