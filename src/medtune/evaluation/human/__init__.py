"""People's judgement of the answers: a blinded sheet to rate, and what the ratings say once the key opens it."""
